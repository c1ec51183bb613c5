// The size goes with the checkpoint while nobody has chosen one. The answer names the size it was asked for: one typed since stays.
import { present } from "./dom.js";
import { value, write } from "./form.js";

const SIDES = ["txt2img_width", "txt2img_height"];

export async function followSize() {
  const advice = await present("#txt2img_native_size");
  const heed = () => take(advice.textContent.trim());
  new MutationObserver(heed).observe(advice, { childList: true, characterData: true, subtree: true });
  heed();
}

function take(text) {
  if (!text.startsWith("{")) return;
  const { asked, native } = JSON.parse(text);
  if (SIDES.some((side, place) => Number(value(side)) !== asked[place])) return;
  SIDES.forEach((side, place) => write(side, native[place]));
}
