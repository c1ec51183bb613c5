// Pictures dropped on the prompt, or pasted into it: their generation parameters are read by the portal.
import { post, Refused } from "./api.js";
import { present } from "./dom.js";

const LARGEST = 22 * 2 ** 20; // bytes: what fits into a request as base64
const PICTURE = /^image\/(png|jpeg|webp|avif)$/;

const SILENT = { code: "no_parameters", message: "This picture carries no generation parameters. Perhaps another program saved it and left them out." };
const TOO_LARGE = { code: "payload_too_large", message: "This picture is larger than 22 MB. Copy its parameters instead and paste them into the prompt." };
const FOREIGN = { code: "invalid_request", message: "Only pictures (PNG, JPEG, WebP, AVIF) can be read here." };

export async function takePictures(selector, { read, refuse }) {
  const target = await present(selector);
  const take = (event, transfer) => {
    const found = picture(transfer);
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    found.then(parameters).then(read).catch((refused) => refuse(refused.error ?? FOREIGN));
  };
  const mark = (event) => {
    if (![...event.dataTransfer.types].some((type) => type === "Files" || type === "text/uri-list")) return;
    event.preventDefault();
    target.classList.add("awaiting-drop");
  };
  for (const name of ["dragenter", "dragover"]) target.addEventListener(name, mark, true);
  for (const name of ["dragleave", "drop"]) target.addEventListener(name, () => target.classList.remove("awaiting-drop"), true);
  target.addEventListener("drop", (event) => take(event, event.dataTransfer), true);
  // Where the clipboard holds text as well, the text is what is meant.
  target.addEventListener("paste", (event) => event.clipboardData.getData("text/plain") || take(event, event.clipboardData), true);
}

// A promise of the picture's bytes, null where none is among what was dropped: text drops as text.
function picture(transfer) {
  const file = [...transfer.files].find((each) => PICTURE.test(each.type)) ?? transfer.files[0];
  if (file) return Promise.resolve(file);
  const address = transfer.getData("text/uri-list").split("\n").find((line) => line && !line.startsWith("#"));
  if (!address) return null;
  const url = new URL(address, location.href);
  // Only our own pictures: the browser may not fetch from elsewhere, nor should the portal.
  return url.origin === location.origin && url.pathname.startsWith("/files/") ? fetch(url).then((answer) => answer.blob()) : null;
}

async function parameters(file) {
  if (file.type && !PICTURE.test(file.type)) throw new Refused(FOREIGN, 0);
  if (file.size > LARGEST) throw new Refused(TOO_LARGE, 0);
  const { infotext } = await post("/api/v1/infotext", { image: await base64(file) });
  if (!infotext) throw new Refused(SILENT, 0);
  return infotext;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Refused(FOREIGN, 0));
    reader.readAsDataURL(file);
  });
}
