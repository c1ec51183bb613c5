// One card: a picture with the name over it, and small buttons for what else can be done.
import { element } from "./dom.js";

const FAMILIES = { sd1: "SD 1.5", sd2: "SD 2.1", sdxl: "SDXL" };

export function familyName(family) {
  if (!family) return "";
  const [base, ...rest] = family.split("-");
  return [FAMILIES[base] ?? base.toUpperCase(), ...rest].join(" ");
}

// `acts`: use, copy, metadata, and edit and preview where they are permitted.
export function drawCard(model, acts) {
  const picture = model.preview_url
    ? element("img", { src: model.preview_url, alt: "", loading: "lazy", decoding: "async" })
    : placeholder(model.name);
  const use = element(
    "button", { type: "button", class: "use", "aria-pressed": "false", title: hint(model), on: { click: () => acts.use(model) } },
    picture,
    element("span", { class: "caption" },
      element("span", { class: "name" }, model.name),
      element("span", { class: "description" }, model.description.split("\n")[0])),
  );
  const family = familyName(model.family);
  const buttons = element(
    "div", { class: "card-buttons" },
    small("copy", "Copy the name", () => acts.copy(model)),
    small("metadata", "Metadata", () => acts.metadata(model)),
    acts.edit && small("edit", "Edit notes", () => acts.edit(model)),
    acts.preview && small("preview", "Take the picture on show as preview", () => acts.preview(model)),
  );
  return element("article", { class: "card", "data-name": model.name }, use, family ? element("span", { class: "badge" }, family) : null, buttons);
}

function small(name, label, act) {
  return element("button", { type: "button", class: `icon ${name}`, title: label, "aria-label": label, on: { click: act } });
}

function hint({ folder, filename, activation_text: words }) {
  return [folder ? `${folder}/${filename}` : filename, words && `Trigger words: ${words}`].filter(Boolean).join("\n");
}

// Colours of its own for a card without a picture, the same each time.
function placeholder(name) {
  let sum = 7;
  for (const letter of name) sum = (Math.imul(sum, 31) + letter.codePointAt(0)) >>> 0;
  const hue = (sum * 137) % 360;
  const made = element("span", { class: "placeholder", "aria-hidden": "true" }, [...name][0]?.toUpperCase() ?? "");
  made.style.setProperty("--hue", String(hue));
  return made;
}
