// The peer's keyboard: Ctrl+Enter generates, Esc interrupts, Alt+Enter skips, Ctrl+Up/Down weighs, Alt+Left/Right moves.
import { shift, weigh } from "./attention.js";
import { element } from "./dom.js";
import { type } from "./form.js";

const PROMPTS = "#txt2img_prompt, #txt2img_neg_prompt, #hires_prompt, #hires_neg_prompt, #txt2img_styles_dialog";

export const KEYS = [
  ["Ctrl + Enter", "Generate (interrupts what runs and starts again)"],
  ["Esc", "Interrupt: after the current picture, again for now"],
  ["Alt + Enter", "Skip to the next picture"],
  ["Ctrl + ↑ ↓", "Weight of the selection, word or bracket: (word:1.1), <lora:x:1.05>"],
  ["Alt + ← →", "Move the comma-separated item"],
  ["← →", "Previous or next picture, in the gallery and the viewer"],
  ["Right-click", "On Generate: generate forever, and stop doing so"],
  ["Drop or Ctrl + V", "A picture on the prompt: its parameters fill the form"],
];

export function listen({ generate, interrupt, skip, running }) {
  document.addEventListener("keydown", (event) => {
    const control = event.ctrlKey || event.metaKey;
    const elsewhere = document.querySelector("dialog[open]") !== null;
    if (event.key === "Enter" && control && !elsewhere) act(event, generate);
    else if (event.key === "Enter" && event.altKey && !elsewhere) act(event, skip);
    else if (event.key === "Escape" && running() && !elsewhere && !opened(event.target)) act(event, interrupt);
    else if (isPrompt(event.target)) inPrompt(event, control);
  }, true);
}

function act(event, what) {
  event.preventDefault();
  event.stopPropagation();
  what();
}

// A list that is open: Esc closes it and nothing more.
function opened(target) {
  return target.getAttribute?.("aria-expanded") === "true";
}

function isPrompt(target) {
  return target instanceof HTMLTextAreaElement && target.closest(PROMPTS) !== null;
}

function inPrompt(event, control) {
  const { target, key } = event;
  let edited = null;
  if (control && (key === "ArrowUp" || key === "ArrowDown"))
    edited = weigh(target.value, target.selectionStart, target.selectionEnd, key === "ArrowUp" ? 1 : -1);
  else if (event.altKey && (key === "ArrowLeft" || key === "ArrowRight"))
    edited = shift(target.value, target.selectionStart, key === "ArrowRight" ? 1 : -1);
  else return;
  event.preventDefault();
  if (!edited) return;
  type(target, edited.text);
  target.setSelectionRange(edited.start, edited.end);
}

export function keysDialog() {
  const rows = KEYS.map(([keys, meaning]) => element("tr", {}, element("th", { scope: "row" }, element("kbd", {}, keys)), element("td", {}, meaning)));
  const dialog = element(
    "dialog", { class: "keys", "aria-labelledby": "keys-title" },
    element("h2", { id: "keys-title" }, "Keyboard"),
    element("table", {}, element("tbody", {}, ...rows)),
    element("form", { method: "dialog" }, element("button", {}, "Close")),
  );
  document.body.append(dialog);
  return dialog;
}
