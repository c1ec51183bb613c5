// Dialogs behind a card: what its file says of itself, and the notes people keep on it.
import { api, send } from "./api.js";
import { familyName } from "./card.js";
import { announce, element, show } from "./dom.js";

const address = (model) => `/api/v1/models/${encodeURIComponent(model.id)}`;

// Returns what opens it for a model.
export function metadataDialog() {
  const title = element("h2", { id: "metadata-title" });
  const facts = element("dl", { class: "facts" });
  const text = element("pre", { class: "metadata", tabIndex: 0, "aria-label": "Metadata of the file" });
  const copy = element("button", { type: "button", on: { click: () => navigator.clipboard.writeText(text.textContent).then(() => announce("Metadata copied")) } }, "Copy");
  const close = element("button", { type: "button", class: "main", on: { click: () => dialog.close() } }, "Close");
  const dialog = element("dialog", { class: "sheet wide", id: "txt2img_metadata_dialog", "aria-labelledby": "metadata-title" }, title, facts, text, element("div", { class: "buttons end" }, copy, close));
  document.body.append(dialog);
  return async (model) => {
    title.textContent = model.name;
    facts.replaceChildren(...told(model));
    text.textContent = "…";
    dialog.showModal();
    try {
      const { metadata } = await api(address(model));
      text.textContent = Object.keys(metadata).length ? JSON.stringify(metadata, readable, 2) : "This file carries no metadata.";
    } catch (refused) {
      text.textContent = refused.message;
    }
  };
}

// Values that are JSON themselves are shown as what they hold.
function readable(key, held) {
  if (typeof held !== "string" || !/^[[{]/.test(held)) return held;
  try {
    return JSON.parse(held);
  } catch {
    return held;
  }
}

function told(model) {
  const rows = [["File", model.filename], ["Size", `${(model.size / 2 ** 20).toFixed(1)} MiB`], ["Family", familyName(model.family) || "unknown"], ["SHA-256", model.sha256], ["Network hash", model.addnet_hash]];
  return rows.filter(([, held]) => held).flatMap(([name, held]) => [element("dt", {}, name), element("dd", {}, held)]);
}

// Returns what opens it for a model; `saved` is called with the changed one.
export function editDialog(saved) {
  const name = element("input", { type: "text", maxLength: 200, required: true });
  const description = element("input", { type: "text", maxLength: 4000 });
  const words = element("textarea", { rows: 2, maxLength: 4000 });
  const chips = element("div", { class: "chips-row", role: "group", "aria-label": "Tags of its training" });
  const weight = element("input", { type: "number", min: -10, max: 10, step: 0.05 });
  const negative = element("input", { type: "text", maxLength: 4000 });
  const notes = element("textarea", { rows: 3, maxLength: 20000 });
  const family = element("select", {});
  const vae = element("select", {});
  const preferredVae = labelled("Preferred VAE", vae);
  // What a click on a card writes into the prompts: a checkpoint's writes nothing.
  const ofNetworks = [labelled("Trigger words", words), labelled("Preferred weight (0: the usual 1)", weight), labelled("Negative prompt", negative)];
  const said = element("p", { class: "said bad", role: "alert", hidden: true });
  const form = element(
    "form", { method: "dialog" },
    labelled("Name", name), labelled("Description", description), ofNetworks[0], chips,
    element("div", { class: "two" }, ofNetworks[1], preferredVae, labelled("Family", family)),
    ofNetworks[2], labelled("Notes", notes), said,
    element("div", { class: "buttons end" }, element("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), element("button", { type: "submit", class: "main" }, "Save")),
  );
  const dialog = element("dialog", { class: "sheet", id: "txt2img_edit_model_dialog", "aria-labelledby": "edit-model-title" }, element("h2", { id: "edit-model-title" }, "Notes"), form);
  let model = null;
  document.body.append(dialog);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show(said, false);
    const body = { name: name.value, description: description.value, activation_text: words.value, preferred_weight: Number(weight.value) || 0, negative_text: negative.value, notes: notes.value };
    if (family.value !== (model.family_override ?? "")) body.family_override = family.value;
    if (model.kind === "checkpoint" && vae.value !== model.vae) body.vae = vae.value;
    try {
      const changed = await send("PATCH", address(model), body);
      dialog.close();
      saved(changed);
    } catch (refused) {
      said.textContent = refused.message;
      show(said, true);
    }
  });

  function chip({ word, count }) {
    const add = () => { words.value = words.value.trim() ? `${words.value.trim()}, ${word}` : word; words.focus(); };
    return element("button", { type: "button", title: `${count} pictures`, on: { click: add } }, word);
  }

  return async (chosen) => {
    model = chosen;
    show(said, false);
    for (const [control, held] of [[name, model.name], [description, model.description], [words, model.activation_text], [weight, model.preferred_weight], [negative, model.negative_text], [notes, model.notes]]) control.value = held;
    const detected = `As the file says (${familyName(model.detected_family) || "unknown"})`;
    const offer = (families) => {
      const names = [...new Set([...families, ...(model.family_override ? [model.family_override] : [])])];
      family.replaceChildren(element("option", { value: "" }, detected), ...names.map((each) => element("option", { value: each }, familyName(each))));
      family.value = model.family_override ?? "";
    };
    offer([]);
    show(preferredVae, model.kind === "checkpoint");
    for (const each of ofNetworks) show(each, model.kind !== "checkpoint");
    chooseVae(vae, model.vae, []);
    chips.replaceChildren();
    dialog.showModal();
    if (model.kind === "checkpoint") api("/api/v1/models?kind=vae").then((vaes) => model === chosen && chooseVae(vae, vae.value, vaes), () => {});
    const { suggested_words: suggested, families } = await api(address(model)).catch(() => ({ suggested_words: [], families: [] }));
    if (model !== chosen) return;
    const picked = family.value;
    offer(families);
    family.value = picked;
    chips.replaceChildren(...suggested.slice(0, 24).map(chip));
  };
}

// Fills the list of VAEs; one that is not here any more stays in it while it is the preferred one.
function chooseVae(list, preferred, vaes) {
  const names = ["None", ...vaes.map((each) => each.filename)];
  if (preferred && !names.includes(preferred)) names.push(preferred);
  list.replaceChildren(element("option", { value: "" }, "Automatic"), ...names.map((name) => element("option", { value: name }, name)));
  list.value = preferred ?? "";
}

function labelled(text, control) {
  return element("label", {}, element("span", {}, text), control);
}
