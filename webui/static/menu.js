// A small menu at the pointer, for what a right-click or a long press offers.
import { element } from "./dom.js";

let shown = null;

function close() {
  shown?.remove();
  shown = null;
}

// `entries()` gives [name, what to do, whether it is out of place right now].
export function menu(target, entries) {
  target.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    close();
    shown = element("div", { class: "context-menu", role: "menu" }, ...entries().map(([name, act, idle]) => item(name, act, idle)));
    document.body.append(shown);
    const { width, height } = shown.getBoundingClientRect();
    shown.style.left = `${Math.min(event.clientX, innerWidth - width - 8)}px`;
    shown.style.top = `${Math.min(event.clientY, innerHeight - height - 8)}px`;
    shown.querySelector("button:not(:disabled)")?.focus();
  });
}

function item(name, act, idle) {
  return element("button", { type: "button", role: "menuitem", disabled: idle, on: { click: () => { close(); act(); } } }, name);
}

document.addEventListener("pointerdown", (event) => { if (shown && !shown.contains(event.target)) close(); }, true);
document.addEventListener("keydown", (event) => {
  if (!shown) return;
  const items = [...shown.querySelectorAll("button:not(:disabled)")];
  const at = items.indexOf(document.activeElement);
  if (event.key === "Escape") close();
  else if (event.key === "ArrowDown") items[(at + 1) % items.length]?.focus();
  else if (event.key === "ArrowUp") items[(at - 1 + items.length) % items.length]?.focus();
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
