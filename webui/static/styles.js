// The styles editor: named texts that are put around or behind the prompts.
import { api, put } from "./api.js";
import { announce, element } from "./dom.js";
import { value } from "./form.js";

const OWN = "own";
const HINT = "{prompt} marks the place of the prompt; without it the style goes behind.";

// Returns what opens the editor; `changed` is called after each save and deletion.
export function stylesDialog(changed) {
  const name = element("input", { id: "txt2img_styles_edit_select", type: "text", list: "txt2img_styles_names", maxLength: 200, autocomplete: "off", required: true });
  const names = element("datalist", { id: "txt2img_styles_names" });
  const prompt = element("textarea", { id: "txt2img_edit_style_prompt", rows: 3 });
  const negative = element("textarea", { id: "txt2img_edit_style_neg_prompt", rows: 3 });
  const said = element("p", { class: "said", role: "status" });
  const remove = element("button", { type: "button", id: "txt2img_edit_style_delete", on: { click: () => attempt(erase) } }, "Delete");
  const save = element("button", { type: "submit", class: "main", id: "txt2img_edit_style_save" }, "Save");
  const copy = element("button", { type: "button", id: "txt2img_style_copy", on: { click: take } }, "Copy from the prompts");
  const load = element("button", { type: "button", id: "txt2img_styles_import", title: "Take in a styles.csv, as A1111 writes it", on: { click: choose } }, "Import…");
  const csv = element("a", { class: "button", id: "txt2img_styles_export", href: "/api/v1/styles/export", download: "styles.csv", title: "Save your styles as a styles.csv" }, "Export");
  const close = element("button", { type: "button", on: { click: () => dialog.close() } }, "Close");
  const form = element(
    "form", { method: "dialog" },
    labelled("Style", name), names, labelled("Prompt", prompt), labelled("Negative prompt", negative),
    element("p", { class: "hint" }, HINT), said,
    element("div", { class: "buttons" }, copy, load, csv),
    element("div", { class: "buttons end" }, remove, close, save),
  );
  const dialog = element("dialog", { class: "sheet", id: "txt2img_styles_dialog", "aria-labelledby": "styles-title" }, element("h2", { id: "styles-title" }, "Styles"), form);
  let known = [];

  form.addEventListener("submit", (event) => { event.preventDefault(); attempt(store); });
  name.addEventListener("input", show);
  document.body.append(dialog);

  function take() {
    [prompt.value, negative.value] = [value("txt2img_prompt"), value("txt2img_neg_prompt")];
  }

  // The named style, if there is one of that name.
  function show() {
    const style = known.find((each) => each.name === name.value);
    if (style) [prompt.value, negative.value] = [style.prompt, style.negative_prompt];
    remove.disabled = style?.scope !== OWN;
  }

  async function list() {
    known = (await api("/api/v1/styles")).styles;
    names.replaceChildren(...known.map((style) => element("option", { value: style.name })));
    show();
  }

  async function store() {
    await put(addressOf(name.value.trim()), { prompt: prompt.value, negative_prompt: negative.value });
    await told(`“${name.value.trim()}” is saved.`);
  }

  async function erase() {
    await api(addressOf(name.value), { method: "DELETE" });
    const gone = name.value;
    name.value = prompt.value = negative.value = "";
    await told(`“${gone}” is deleted.`);
  }

  function choose() {
    const picker = element("input", { type: "file", accept: ".csv,text/csv" });
    picker.addEventListener("change", () => picker.files.length && attempt(() => takeIn(picker.files[0])));
    picker.click();
  }

  async function takeIn(file) {
    const headers = { Accept: "application/json", "Content-Type": "text/csv" };
    const { added, replaced, refused } = await api("/api/v1/styles/import", { method: "POST", headers, body: file });
    const rest = refused.map((row) => ` Line ${row.line}: ${row.reason}`);
    await told([`${added} added, ${replaced} replaced.`, ...rest].join(""));
  }

  async function told(text) {
    await list();
    changed();
    say(text);
    announce(text);
  }

  function say(text, bad = false) {
    said.textContent = text;
    said.classList.toggle("bad", bad);
    said.hidden = !text;
  }

  async function attempt(act) {
    say("");
    try {
      await act();
    } catch (refused) {
      say(refused.message, true);
    }
  }

  return () => {
    dialog.showModal();
    attempt(list);
  };
}

function addressOf(name) {
  return `/api/v1/styles/${encodeURIComponent(name)}`;
}

function labelled(text, control) {
  return element("label", {}, element("span", {}, text), control);
}
