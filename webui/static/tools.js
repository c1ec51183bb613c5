// What the small buttons of the form do, and what may be dropped on the prompt.
import { byId, element, present } from "./dom.js";
import { field, settled, swap, write } from "./form.js";
import { keysDialog } from "./keys.js";
import { menu } from "./menu.js";
import { takePictures } from "./reading.js";
import { stylesDialog } from "./styles.js";

function onClick(id, act) {
  present(`#${id}`).then((button) => button.addEventListener("click", act));
}

export function tieTools(studio) {
  const { results } = studio;
  onClick("txt2img_interrupt", () => studio.interrupt());
  onClick("txt2img_skip", () => studio.skip());
  onClick("txt2img_res_switch_btn", () => swap("txt2img_width", "txt2img_height"));
  onClick("txt2img_random_seed", () => write("txt2img_seed", -1));
  onClick("txt2img_random_subseed", () => write("txt2img_subseed", -1));
  onClick("txt2img_reuse_seed", () => results.chosen && write("txt2img_seed", results.chosen.seed));
  onClick("txt2img_reuse_subseed", () => results.chosen && write("txt2img_subseed", results.chosen.subseed));
  onClick("txt2img_restore_progress", () => studio.state === "idle" && studio.restore().catch(({ error }) => results.complain(error)));
  onClick("txt2img_clear_prompt", () => {
    write("txt2img_prompt", "");
    write("txt2img_neg_prompt", "");
    field("txt2img_prompt").focus();
  });
  const keys = keysDialog();
  onClick("txt2img_keys", () => keys.showModal());
  onClick("txt2img_styles_edit_button", stylesDialog(() => byId("txt2img_styles_refresh").click()));
  onClick("txt2img_prompts_file", () => chooseText("script_txt2img_prompts_from_file_or_textbox_prompt_txt"));
  tieForever(studio);
  tieReading(studio);
}

// Right-click, or a long press: one picture after the other.
function tieForever(studio) {
  const entries = () => [
    ["Generate forever", () => studio.keepGenerating(true), studio.forever],
    ["Cancel generate forever", () => studio.keepGenerating(false), !studio.forever],
  ];
  for (const id of ["txt2img_generate", "txt2img_interrupt", "txt2img_skip"]) present(`#${id}`).then((button) => menu(button, entries));
}

// The paste button's handler reads the prompt; a picture brings its parameters there first.
function tieReading(studio) {
  onClick("paste", () => {
    studio.reading = true;
    studio.results.complain(null);
  });
  takePictures("#txt2img_prompt", {
    read: takeParameters,
    refuse: (error) => studio.results.complain(error),
  });
}

// Generation parameters into the form, as if they had been typed into the prompt and read from there.
export async function takeParameters(infotext) {
  write("txt2img_prompt", infotext);
  await settled();
  byId("paste").click();
}

// The lines of a text file into a text field, as the peer's panel takes a file.
function chooseText(id) {
  const picker = element("input", { type: "file", accept: ".txt,text/plain" });
  picker.addEventListener("change", async () => {
    const [file] = picker.files;
    if (file) write(id, (await file.text()).replaceAll("\r\n", "\n").trimEnd());
  });
  picker.click();
}
