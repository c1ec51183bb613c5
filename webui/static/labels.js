// Tooltips: what a button does and which keys do it.
import { present } from "./dom.js";

const TIPS = {
  txt2img_generate: "Ctrl+Enter. Right-click: generate forever",
  txt2img_interrupt: "Esc: stop after the current picture; again: stop now",
  txt2img_skip: "Alt+Enter: go on with the next picture",
};

export function nameButtons() {
  for (const [id, tip] of Object.entries(TIPS)) present(`#${id}`).then((button) => { button.title = tip; });
  present("#txt2img_settings").then(() => {
    for (const button of document.querySelectorAll("button.tool")) button.title = button.textContent.trim();
  });
  for (const id of ["txt2img_token_counter", "txt2img_negative_token_counter"])
    present(`#${id}`).then((counter) => {
      // It only tells: nobody should come by it on the way to the next field.
      counter.tabIndex = -1;
      const judge = () => {
        const wrong = counter.textContent.includes("⚠");
        counter.classList.toggle("wrong", wrong);
        counter.title = wrong ? counter.textContent.trim() : "Tokens used / room for them";
      };
      new MutationObserver(judge).observe(counter, { childList: true, characterData: true, subtree: true });
      judge();
    });
  // What a fold says in its head is a button to Gradio only: it is passed over, and while empty not there at all.
  for (const id of ["txt2img_hr_line", "txt2img_enable_line"])
    present(`#${id}`).then((line) => {
      line.tabIndex = -1;
      const judge = () => line.setAttribute("aria-hidden", String(!line.textContent.trim()));
      new MutationObserver(judge).observe(line, { childList: true, characterData: true, subtree: true });
      judge();
    });
  // Drawn without a visible label; a placeholder is no name.
  for (const [id, name] of [["txt2img_prompt", "Prompt"], ["txt2img_neg_prompt", "Negative prompt"], ["txt2img_styles", "Styles"]])
    present(`#${id} :is(textarea, input)`).then((area) => {
      area.setAttribute("aria-label", name);
      area.placeholder ||= name;
    });
}
