// The folders of cards, as buttons in a row or as a tree; which of the two is remembered.
import { element, show } from "./dom.js";

const REMEMBERED = "atelier-card-tree";

export class Folders {
  // `chosen` is called with a folder's path, "" for all.
  constructor(chosen) {
    this.chosen = chosen;
    this.folder = "";
    this.models = [];
    this.open = new Set();
    this.asTree = localStorage.getItem(REMEMBERED) === "true";
    this.toggle = element("button", { type: "button", class: "icon tree-toggle", id: "txt2img_extra_tree", "aria-label": "Folders", on: { click: () => this.turn() } });
    this.place = element("div", { class: "dirs" });
    this.place.addEventListener("keydown", (event) => this.move(event));
  }

  draw(models, folder) {
    Object.assign(this, { models, folder });
    const names = new Set();
    for (const each of models) ancestors(each.folder).forEach((name) => names.add(name));
    this.names = [...names].sort((one, other) => one.localeCompare(other));
    const text = this.asTree ? "Folders as a tree; show them in a row" : "Folders in a row; show them as a tree";
    Object.assign(this.toggle, { title: text, ariaLabel: text });
    this.toggle.setAttribute("aria-pressed", String(this.asTree));
    this.place.classList.toggle("tree", this.asTree);
    this.place.setAttribute("role", this.asTree ? "tree" : "group");
    this.place.setAttribute("aria-label", "Folders");
    this.place.replaceChildren(...["", ...this.names].filter((name) => !this.asTree || this.visible(name)).map((name) => (this.asTree ? this.branch(name) : this.button(name))));
    for (const part of [this.place, this.toggle]) show(part, this.names.length > 0);
  }

  turn() {
    this.asTree = !this.asTree;
    localStorage.setItem(REMEMBERED, String(this.asTree));
    if (this.asTree) ancestors(this.folder).forEach((name) => this.open.add(name));
    this.draw(this.models, this.folder);
  }

  choose(name, focus = false) {
    this.draw(this.models, name);
    if (focus) this.place.querySelector("[aria-selected=true]")?.focus();
    this.chosen(name);
  }

  button(name) {
    return element("button", { type: "button", "aria-pressed": String(name === this.folder), on: { click: () => this.choose(name) } }, name || "All");
  }

  // Whether every folder around it is open.
  visible(name) {
    return ancestors(parentOf(name)).every((each) => this.open.has(each));
  }

  branch(name) {
    const within = name ? this.models.filter(({ folder }) => folder === name || folder.startsWith(`${name}/`)).length : this.models.length;
    const opens = this.names.some((each) => parentOf(each) === name) && name !== "";
    const made = element(
      "div", { class: "branch", role: "treeitem", "data-folder": name, "aria-selected": String(name === this.folder), "aria-level": String(ancestors(name).length || 1), tabIndex: name === this.folder ? 0 : -1, on: { click: (event) => (event.target.closest(".twist") ? this.twist(name) : this.choose(name, true)) } },
      element("span", { class: opens ? "twist" : "twist none", "aria-hidden": "true" }), element("span", { class: "folder-name" }, name.split("/").pop() || "All"), element("span", { class: "count" }, String(within)));
    if (opens) made.setAttribute("aria-expanded", String(this.open.has(name)));
    return made;
  }

  twist(name, open = !this.open.has(name)) {
    if (open) this.open.add(name);
    else this.open.delete(name);
    // What was chosen inside a folder that closes gives way to the folder.
    if (!open && this.folder.startsWith(`${name}/`)) return this.choose(name, true);
    this.draw(this.models, this.folder);
    this.place.querySelector(`[data-folder="${CSS.escape(name)}"]`).focus();
  }

  move(event) {
    const here = event.target.closest(".branch");
    if (!here || event.altKey || event.ctrlKey) return;
    const shown = [...this.place.children];
    const at = shown.indexOf(here);
    const { folder: name } = here.dataset;
    const expanded = here.getAttribute("aria-expanded");
    const act = {
      ArrowDown: () => shown[at + 1]?.focus(),
      ArrowUp: () => shown[at - 1]?.focus(),
      Home: () => shown[0].focus(),
      End: () => shown.at(-1).focus(),
      ArrowRight: () => (expanded === "false" ? this.twist(name, true) : expanded === "true" && shown[at + 1]?.focus()),
      ArrowLeft: () => (expanded === "true" ? this.twist(name, false) : shown.find((each) => each.dataset.folder === parentOf(name))?.focus()),
      Enter: () => this.choose(name, true),
      " ": () => this.choose(name, true),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

const parentOf = (name) => name.split("/").slice(0, -1).join("/");

// "a/b" -> ["a", "a/b"]; of "" there are none.
function ancestors(name) {
  return name ? name.split("/").map((_, depth, names) => names.slice(0, depth + 1).join("/")) : [];
}
