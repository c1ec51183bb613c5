// Cards of extra networks and checkpoints beside the generation form: looked for, sorted, and put into the prompt by a click.
import { api, Refused } from "./api.js";
import { drawCard } from "./card.js";
import { editDialog, metadataDialog } from "./carddialogs.js";
import { Folders } from "./cardfolders.js";
import { announce, byId, element, present, show } from "./dom.js";
import { settled, value, write } from "./form.js";
import { contains, toggled, withoutText, withText } from "./prompttags.js";

const weight = (model) => Number((model.preferred_weight || 1).toFixed(2));

// A page of cards as the web UI tells it, ready for use: what a click puts into the prompt; null chooses the checkpoint instead.
function readable(page) {
  const fill = (model) => page.tag.replaceAll("{name}", () => model.prompt_name).replaceAll("{multiplier}", () => weight(model));
  return { ...page, id: page.title.toLowerCase().replace(/[^a-z0-9]+/g, "_"), label: page.title, tag: page.tag === null ? null : fill };
}

const SORTS = [["name", "Name"], ["path", "Path"], ["created", "Date created"], ["modified", "Date modified"]];
const REMEMBERED = "atelier-cards";
const base = (family) => (family ?? "").split("-")[0];
const path = (model) => `${model.folder}/${model.filename}`.toLowerCase();

class Cards {
  constructor(root, results) {
    this.results = results;
    this.models = [];
    this.drawn = new Map();
    this.tab = null;
    this.search = "";
    this.folder = "";
    this.others = false;
    this.prompt = "txt2img_prompt";
    Object.assign(this, { sort: "name", down: false }, remembered());
    this.build(root);
  }

  build(root) {
    this.searching = element("input", { type: "search", id: "txt2img_extra_search", class: "search", placeholder: "Search", autocomplete: "off", spellcheck: false, "aria-label": "Search the cards", on: { input: () => { this.search = this.searching.value.toLowerCase(); this.filter(); } } });
    this.sorting = element("select", { class: "sort", id: "txt2img_extra_sort", "aria-label": "Sort by", on: { change: () => this.order(this.sorting.value, this.down) } }, ...SORTS.map(([id, name]) => element("option", { value: id, selected: id === this.sort }, name)));
    this.direction = element("button", { type: "button", class: "icon direction", on: { click: () => this.order(this.sort, !this.down) } });
    this.refreshing = element("button", { type: "button", class: "icon again", id: "txt2img_extra_refresh", title: "Look for new files", "aria-label": "Look for new files", on: { click: () => this.refresh() } });
    this.switch = element("input", { type: "checkbox", id: "txt2img_extra_others", on: { change: () => { this.others = this.switch.checked; this.filter(); } } });
    this.foreign = element("label", { class: "others" }, this.switch, element("span", {}, "Other families"));
    this.folders = new Folders((folder) => { this.folder = folder; this.filter(); });
    this.list = element("div", { class: "card-list", id: "txt2img_extra_cards", role: "group", "aria-label": "Cards" });
    this.said = element("p", { class: "cards-said", role: "status" });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.list.addEventListener("focusin", (event) => this.rove(event.target.closest(".card")));
    root.append(element("div", { class: "cards-bar" }, this.searching, this.sorting, this.direction, this.foreign, this.folders.toggle, this.refreshing), this.said, element("div", { class: "cards-body" }, this.folders.place, this.list));
    this.edit = editDialog((model) => this.replace(model));
    this.metadata = metadataDialog();
    this.label();
  }

  async open(tab) {
    this.tab = tab;
    this.folder = "";
    this.list.dataset.kind = tab.kind;
    await this.load();
  }

  async load() {
    const { kind } = this.tab;
    this.say("");
    try {
      const [me, models, checkpoints] = await Promise.all([api("/api/v1/me"), api(`/api/v1/models?kind=${kind}`), api("/api/v1/models?kind=checkpoint")]);
      if (this.tab.kind !== kind) return;
      this.manages = me.permissions.includes("models.manage");
      this.models = models.filter((model) => model.kind === kind);
      this.checkpoints = checkpoints;
      this.draw();
    } catch (refused) {
      this.say(refused.message, true);
    }
  }

  async refresh() {
    this.refreshing.disabled = true;
    try {
      const { added, moved, returned, missing } = await api("/api/v1/models/refresh", { method: "POST" });
      await this.load();
      const found = added.length + moved.length + returned.length;
      announce(found === 1 ? "One new model" : `${found} new models`);
      if (missing.length) this.say(`${missing.join(", ")}: moved or deleted, and not shown any more. Notes are kept for when the file is back.`, true);
    } catch (refused) {
      this.say(refused.message, true);
    } finally {
      this.refreshing.disabled = false;
    }
  }

  draw() {
    const acts = { use: (model) => this.use(model), copy: (model) => this.copy(model), metadata: (model) => this.metadata(model), edit: this.manages ? (model) => this.edit(model) : null, preview: this.manages ? (model) => this.takePreview(model) : null };
    this.drawn = new Map(this.models.map((model) => [model.id, drawCard(model, acts)]));
    this.folders.draw(this.models, this.folder);
    this.arrange();
  }

  replace(model) {
    const at = this.models.findIndex((each) => each.id === model.id);
    if (at < 0) return;
    this.models[at] = model;
    this.draw();
    this.drawn.get(model.id)?.querySelector(".use").focus();
  }

  order(sort, down) {
    Object.assign(this, { sort, down });
    localStorage.setItem(REMEMBERED, JSON.stringify({ sort, down }));
    this.label();
    this.arrange();
  }

  label() {
    const text = this.down ? "Descending; sort ascending" : "Ascending; sort descending";
    Object.assign(this.direction, { title: text, ariaLabel: text });
    this.direction.classList.toggle("down", this.down);
  }

  arrange() {
    const by = { name: (model) => model.name.toLowerCase(), path, created: (model) => model.created, modified: (model) => model.modified }[this.sort];
    const way = this.down ? -1 : 1;
    this.models.sort((one, other) => { const [a, b] = [by(one), by(other)]; return a === b ? 0 : a < b ? -way : way; });
    this.list.replaceChildren(...this.models.map((model) => this.drawn.get(model.id)));
    this.filter();
  }

  // The family of the checkpoint that is chosen; "" where nobody knows.
  get family() {
    const title = value("setting_sd_model_checkpoint");
    return base(this.checkpoints?.find((each) => each.title === title)?.family);
  }

  filter() {
    const words = this.search.split(/\s+/).filter(Boolean);
    const family = this.tab.tag ? this.family : "";
    let shown = 0;
    let hidden = 0;
    for (const model of this.models) {
      const text = [model.name, model.alias, model.filename, model.folder, model.description, model.activation_text, model.sha256].join(" ").toLowerCase();
      const within = !this.folder || model.folder === this.folder || model.folder.startsWith(`${this.folder}/`);
      const wanted = within && words.every((word) => text.includes(word));
      const foreign = Boolean(family && model.family && base(model.family) !== family);
      if (wanted && foreign && !this.others) hidden += 1;
      const visible = wanted && (!foreign || this.others);
      shown += visible;
      show(this.drawn.get(model.id), visible);
    }
    show(this.foreign, Boolean(this.tab.tag));
    this.mark();
    this.rove();
    const rest = hidden ? `${hidden} of another family than the checkpoint ${hidden === 1 ? "is" : "are"} hidden.` : "";
    this.say(this.models.length === 0 ? this.tab.empty : shown === 0 && !hidden ? "Nothing matches." : rest);
  }

  say(text, bad = false) {
    this.said.textContent = text;
    this.said.classList.toggle("bad", bad);
    show(this.said, Boolean(text));
  }

  // Which cards the prompt has, or which checkpoint is chosen.
  mark() {
    if (!this.tab) return;
    const text = value("txt2img_prompt") + "\n" + value("txt2img_neg_prompt");
    const title = value("setting_sd_model_checkpoint");
    for (const model of this.models) {
      const on = this.tab.tag ? contains(text, this.tab.tag(model)) : model.title === title;
      this.drawn.get(model.id)?.querySelector(".use").setAttribute("aria-pressed", String(on));
    }
  }

  async use(model) {
    if (!this.tab.tag) return this.choose(model);
    const tag = this.tab.tag(model);
    const target = tag.startsWith("<") ? "txt2img_prompt" : this.prompt;
    const before = value(target);
    const on = !contains(before, tag);
    write(target, toggled(before, tag, model.activation_text));
    if (model.negative_text) write("txt2img_neg_prompt", (on ? withText : withoutText)(value("txt2img_neg_prompt"), model.negative_text));
    await settled();
    this.mark();
    announce(`${model.name} ${on ? "added to" : "taken out of"} the prompt`);
  }

  async choose(model) {
    write("txt2img_card_source", model.title);
    await settled();
    byId("txt2img_card_send").click();
    announce(`${model.name} is the checkpoint`);
    for (const [id, card] of this.drawn) card.querySelector(".use").setAttribute("aria-pressed", String(id === model.id));
  }

  async copy(model) {
    await navigator.clipboard.writeText(model.name);
    announce("Name copied");
  }

  async takePreview(model) {
    const { chosen } = this.results;
    if (!chosen) return this.say("Make or choose a picture first: the one on show becomes the preview.", true);
    try {
      const view = await api(`/api/v1/models/${model.id}/preview?picture=${encodeURIComponent(chosen.id)}`, { method: "PUT" });
      this.replace(view);
      announce(`${model.name} has a new preview`);
    } catch (refused) {
      this.say(refused instanceof Refused ? refused.message : String(refused), true);
    }
  }

  get visible() {
    return [...this.list.children].filter((card) => !card.hidden);
  }

  // One card at a time is on the way of the Tab key; the arrows lead to the others.
  rove(card = null) {
    const cards = this.visible;
    const here = card && cards.includes(card) ? card : cards.find((each) => each.contains(document.activeElement)) ?? cards[0];
    for (const each of this.list.children) for (const button of each.querySelectorAll("button")) button.tabIndex = each === here ? 0 : -1;
  }

  move(event) {
    const cards = this.visible;
    const at = cards.indexOf(event.target.closest(".card"));
    const across = Math.max(1, cards.filter((card) => card.offsetTop === cards[0].offsetTop).length);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + across, ArrowUp: at - across, Home: 0, End: cards.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.altKey || event.ctrlKey) return;
    event.preventDefault();
    cards[Math.min(Math.max(to, 0), cards.length - 1)].querySelector(".use").focus();
  }
}

function remembered() {
  try {
    const { sort, down } = JSON.parse(localStorage.getItem(REMEMBERED) ?? "{}");
    return SORTS.some(([id]) => id === sort) ? { sort, down: Boolean(down) } : {};
  } catch {
    return {};
  }
}

// The tabs above the form: Generation, and one for each page of cards that the studio and its extensions have.
export async function tieCards(results) {
  const strip = await present("#txt2img_extra_tabs");
  const cards = new Cards(await present("#txt2img_extra_networks"), results);
  const pages = await api("/ui/cards/txt2img.json").catch((refused) => { results.complain(refused.error); return []; });
  const buttons = [{ id: "generation", label: "Generation" }, ...pages.map(readable)].map((tab) =>
    element("button", { type: "button", role: "tab", id: `txt2img_${tab.id}_tab`, "aria-selected": String(!tab.kind), tabIndex: tab.kind ? -1 : 0, on: { click: () => choose(tab) } }, tab.label));
  function choose(tab) {
    document.body.toggleAttribute("data-cards", Boolean(tab.kind));
    for (const button of buttons) {
      const on = button.id === `txt2img_${tab.id}_tab`;
      button.setAttribute("aria-selected", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    if (tab.kind) cards.open(tab);
  }
  const list = element("div", { class: "tab-strip", role: "tablist", "aria-label": "Generation and cards" }, ...buttons);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  strip.append(list);
  for (const id of ["txt2img_prompt", "txt2img_neg_prompt"]) present(`#${id} textarea`).then((area) => {
    area.addEventListener("focus", () => { cards.prompt = id; });
    area.addEventListener("input", () => cards.mark());
  });
  // Gradio tells nobody when a choice is made: look again once the list is left.
  (await present("#setting_sd_model_checkpoint")).addEventListener("focusout", () => setTimeout(() => cards.tab && cards.filter(), 150));
}
