// Reading and writing the form Gradio draws, by the controls' element ids.
import { byId, present } from "./dom.js";

const FILLED_MS = 5000;

export function field(id) {
  const root = byId(id);
  if (!root) return null;
  if (root.matches("input, textarea")) return root;
  return root.querySelector("textarea, input[type=number], input:not([type=range])");
}

export function value(id) {
  return field(id)?.value ?? "";
}

// Write as a person would: Gradio listens to the events, not to the property.
export function write(id, text) {
  const target = field(id);
  if (!target) return;
  type(target, String(text));
}

export function type(target, text) {
  target.value = text;
  target.dispatchEvent(new Event("input", { bubbles: true }));
  target.dispatchEvent(new Event("change", { bubbles: true }));
}

export function swap(one, other) {
  const [first, second] = [value(one), value(other)];
  write(one, second);
  write(other, first);
}

// Gradio sends what it has drawn: give it the time to take in what was written.
export function settled() {
  return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}

// The first answer chooses the checkpoint and its own size: until it is there, a number typed over it would be lost.
export async function filled() {
  const settings = await present("#txt2img_settings");
  settings.inert = true;
  const until = performance.now() + FILLED_MS;
  while (!value("setting_sd_model_checkpoint") && performance.now() < until) await settled();
  await settled();
  settings.inert = false;
}
