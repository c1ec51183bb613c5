// The full-page viewer: one picture on black, arrows to the next, Esc to close.
import { element } from "./dom.js";

export function viewer({ previous, next }) {
  const picture = element("img", { alt: "" });
  const caption = element("p", { class: "caption" });
  const step = (name, label, sign, go) =>
    element("button", { class: `step ${name}`, type: "button", "aria-label": label, on: { click: (event) => { event.stopPropagation(); go(); } } }, sign);
  const dialog = element(
    "dialog", { class: "viewer", "aria-label": "Full-page viewer" },
    step("back", "Previous picture", "‹", previous),
    picture,
    step("on", "Next picture", "›", next),
    caption,
    element("form", { method: "dialog" }, element("button", { class: "close", "aria-label": "Close" }, "×")),
  );
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") previous();
    else if (event.key === "ArrowRight") next();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.body.append(dialog);
  return {
    open(shown) {
      this.turn(shown);
      if (!dialog.open) dialog.showModal();
    },
    turn(shown) {
      picture.src = shown.url;
      picture.alt = shown.alt;
      caption.textContent = shown.caption;
    },
    get isOpen() { return dialog.open; },
  };
}
