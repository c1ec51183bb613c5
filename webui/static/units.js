// Units of extensions beside the form (ControlNet): a picture, what is drawn of it, and a model. What is on goes with the form as JSON.
import { api, post, Refused, renewed } from "./api.js";
import { byId, element, present, show } from "./dom.js";
import { value, write } from "./form.js";

const SOURCE = "txt2img_units_source";
const MOST_BYTES = 30 * 2 ** 20;
const COMMON = [
  { field: "weight", label: "Control Weight", value: 1, minimum: 0, maximum: 2, step: 0.05 },
  { field: "guidance_start", label: "Starting Control Step", value: 0, minimum: 0, maximum: 1, step: 0.01 },
  { field: "guidance_end", label: "Ending Control Step", value: 1, minimum: 0, maximum: 1, step: 0.01 },
];

// The picture as it is, into the studio's store; the id it has there.
async function upload(file) {
  if (file.size > MOST_BYTES) throw new Refused({ message: `The picture has ${Math.round(file.size / 2 ** 20)} MiB; at most 30 may be.` }, 413);
  return api("/api/v1/assets", { method: "POST", body: file, headers: { Accept: "application/json", "Content-Type": file.type || "application/octet-stream" } });
}

// The map as an address the page may show.
async function drawnMap(body) {
  const ask = () => fetch("/api/v1/controlnet/preview", { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  let answer = await ask();
  if (answer.status === 401 && (await renewed())) answer = await ask();
  if (answer.ok) return URL.createObjectURL(await answer.blob());
  const told = await answer.json().catch(() => ({}));
  throw new Refused(told.error ?? { message: `The portal answered ${answer.status}. Try again.` }, answer.status);
}

class Unit {
  constructor(section, number, changed) {
    Object.assign(this, { section, number, changed, image: "", numbers: {} });
    this.id = (name) => `${section.member}_unit_${number}_${name}`;
    this.panel = element("div", { class: "unit", role: "tabpanel", id: this.id("panel"), "aria-label": `${section.title} unit ${number}` });
    this.enabled = this.check("enabled", "Enable");
    this.perfect = this.check("pixel_perfect", "Pixel Perfect");
    this.module = this.choice("module", "Preprocessor", section.modules.map((each) => [each.name, each.label]));
    this.model = this.choice("model", "Model", [["", "None"]]);
    this.mode = this.choice("control_mode", "Control Mode", section.control_modes.map((each) => [each, each]));
    this.resize = this.choice("resize_mode", "Resize Mode", section.resize_modes.map((each) => [each, each]));
    this.resize.input.value = "Crop and Resize";
    this.passes = this.choice("hr_option", "Acts in", section.passes.map((each) => [each, each]));
    this.common = COMMON.map((slider) => this.dial(slider));
    this.own = element("div", { class: "unit-row" });
    this.said = element("p", { class: "unit-said", role: "status" });
    this.panel.append(this.well(), element("div", { class: "unit-checks" }, this.enabled.root, this.perfect.root), this.said,
      element("div", { class: "unit-row" }, this.module.root, this.model.root), this.own,
      element("div", { class: "unit-row" }, ...this.common.map((each) => each.root)),
      element("div", { class: "unit-row" }, this.mode.root, this.resize.root, this.passes.root));
    this.follow();
  }

  well() {
    this.picking = element("input", { type: "file", accept: "image/*", class: "sr-only", id: this.id("file"), "aria-label": "Picture of the unit", on: { change: () => this.take(this.picking.files[0]) } });
    this.shown = element("img", { alt: "The unit's picture", hidden: true });
    this.map = element("img", { alt: "What the preprocessor makes of it", hidden: true });
    this.hint = element("span", { class: "unit-hint" }, "Drop a picture here, paste it, or click");
    this.drop = element("label", { class: "unit-drop", tabIndex: 0, "for": this.id("file"), on: {
      dragover: (event) => event.preventDefault(),
      drop: (event) => { event.preventDefault(); this.take(event.dataTransfer.files[0]); },
      keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.picking.click(); } },
    } }, this.hint, this.shown, this.picking);
    this.panel.addEventListener("paste", (event) => this.take([...event.clipboardData.files][0]));
    this.preview = element("button", { type: "button", id: this.id("preview"), on: { click: () => this.look() } }, "Preview");
    this.remove = element("button", { type: "button", id: this.id("clear"), hidden: true, on: { click: () => this.clear() } }, "Remove picture");
    return element("div", { class: "unit-well" }, this.drop, element("div", { class: "unit-map" }, this.map, element("div", { class: "unit-buttons" }, this.preview, this.remove)));
  }

  check(name, label) {
    const input = element("input", { type: "checkbox", id: this.id(name), on: { change: () => this.follow() } });
    return { input, root: element("label", { class: "unit-check" }, input, element("span", {}, label)) };
  }

  choice(name, label, options) {
    const input = element("select", { id: this.id(name), on: { change: () => this.follow() } });
    this.offer(input, options);
    return { input, root: element("label", { class: "unit-field" }, element("span", {}, label), input) };
  }

  offer(input, options) {
    const before = input.value;
    input.replaceChildren(...options.map(([id, name]) => element("option", { value: id }, name)));
    if (options.some(([id]) => id === before)) input.value = before;
  }

  dial({ field, label, value: standard, minimum, maximum, step }) {
    const input = element("input", { type: "number", id: this.id(field), min: minimum, max: maximum, step, value: this.numbers[field] ?? standard, on: { change: () => { this.numbers[field] = input.value; this.changed(); } } });
    return { field, input, root: element("label", { class: "unit-field" }, element("span", {}, label), input) };
  }

  // The sliders of the chosen preprocessor, and of nothing else.
  follow() {
    const module = this.section.modules.find((each) => each.name === this.module.input.value);
    if (module !== this.chosen) {
      for (const each of this.sliders ?? []) delete this.numbers[each.field];
      this.chosen = module;
      this.sliders = module.sliders.map((slider) => this.dial(slider));
      this.own.replaceChildren(...this.sliders.map((each) => each.root));
    }
    for (const each of this.sliders) show(each.root, !(each.field === "processor_res" && this.perfect.input.checked));
    this.changed();
  }

  async take(file) {
    if (!file) return;
    this.say("");
    this.drop.classList.add("busy");
    try {
      const { id } = await upload(file);
      this.image = id;
      this.shown.src = `/api/v1/assets/${id}`;
      show(this.shown, true);
      show(this.hint, false);
      show(this.remove, true);
      this.enabled.input.checked = true;
      this.forget();
    } catch (refused) {
      this.say(refused.message);
    }
    this.drop.classList.remove("busy");
    this.picking.value = "";
    this.changed();
  }

  clear() {
    this.image = "";
    this.shown.removeAttribute("src");
    show(this.shown, false);
    show(this.hint, true);
    show(this.remove, false);
    this.enabled.input.checked = false;
    this.forget();
    this.changed();
  }

  forget() {
    if (this.map.src) URL.revokeObjectURL(this.map.src);
    this.map.removeAttribute("src");
    show(this.map, false);
  }

  async look() {
    if (!this.image) return this.say("Choose a picture first.");
    this.say("");
    this.preview.disabled = true;
    const numbers = Object.fromEntries(this.sliders.map((each) => [each.field, Number(each.input.value)]));
    try {
      const made = await drawnMap({ module: this.chosen.name, image: this.image, ...numbers });
      this.forget();
      this.map.src = made;
      show(this.map, true);
    } catch (refused) {
      this.say(refused.message);
    }
    this.preview.disabled = false;
  }

  say(text) {
    this.said.textContent = text;
  }

  get on() {
    return this.enabled.input.checked;
  }

  // As the request has it.
  get told() {
    if (!this.on) return { enabled: false };
    const numbers = [...this.common, ...this.sliders].map((each) => [each.field, Number(each.input.value)]);
    return {
      enabled: true, image: this.image || null, module: this.chosen.name, model: this.model.input.value || "None",
      pixel_perfect: this.perfect.input.checked, control_mode: this.mode.input.value, resize_mode: this.resize.input.value, hr_option: this.passes.input.value,
      ...Object.fromEntries(numbers),
    };
  }
}

class Section {
  constructor(root, section) {
    this.section = section;
    this.units = [];
    const changed = () => this.tell();
    this.units = Array.from({ length: section.count }, (_, number) => new Unit(section, number, changed));
    this.state = element("span", { class: "units-state" });
    const tabs = element("div", { class: "unit-strip", role: "tablist", "aria-label": section.title }, ...this.units.map((unit) =>
      element("button", { type: "button", role: "tab", id: unit.id("tab"), "aria-controls": unit.id("panel"), on: { click: () => this.choose(unit) } }, `Unit ${unit.number}`)));
    this.tabs = [...tabs.children];
    tabs.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const place = this.tabs.indexOf(document.activeElement);
      if (!step || place < 0) return;
      event.preventDefault();
      const next = this.tabs[(place + step + this.tabs.length) % this.tabs.length];
      next.focus();
      next.click();
    });
    const fold = element("details", { class: "units-fold", id: `${section.member}_section` }, element("summary", {}, section.title, this.state), tabs, ...this.units.map((unit) => unit.panel));
    fold.addEventListener("toggle", () => fold.open && this.list());
    root.append(fold);
    this.choose(this.units[0]);
    this.tell();
  }

  choose(unit) {
    this.units.forEach((each, place) => {
      show(each.panel, each === unit);
      this.tabs[place].setAttribute("aria-selected", String(each === unit));
      this.tabs[place].tabIndex = each === unit ? 0 : -1;
    });
  }

  // The models there are now, each time the section is opened.
  async list() {
    try {
      const models = (await api(`/api/v1/models?kind=${this.section.kind}`)).filter((each) => each.kind === this.section.kind);
      const options = [["", "None"], ...models.map((each) => [each.title, each.name])];
      for (const unit of this.units) unit.offer(unit.model.input, options);
    } catch (refused) {
      this.units[0].say(refused.message);
    }
  }

  tell() {
    if (this.units.length < this.section.count || !this.tabs) return;
    const on = this.units.filter((unit) => unit.on);
    this.state.textContent = on.length ? `${on.length} on` : "";
    this.units.forEach((unit, place) => this.tabs[place].toggleAttribute("data-on", unit.on));
    const text = on.length ? JSON.stringify({ [this.section.member]: { args: this.units.map((unit) => unit.told) } }) : "";
    if (value(SOURCE) !== text) write(SOURCE, text);
  }
}

export async function tieUnits(results) {
  const root = await present("#txt2img_units");
  await present(`#${SOURCE}`);
  const sections = await api("/ui/units/txt2img.json").catch((refused) => { results.complain(refused.error); return []; });
  if (byId(SOURCE)) for (const section of sections) new Section(root, section);
}
