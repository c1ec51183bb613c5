// The right-hand column: the picture, its neighbours, what made it, and whatever there is to say about the job.
import { announce, element, show } from "./dom.js";
import { percent, taken, wording } from "./progress.js";
import { viewer } from "./viewer.js";

// Goes with every form, so that there are grids; nobody needs to hear that a job has none.
const ALWAYS_SENT = "save_images";
const UPSCALE = "Draw this picture once more with the Hires. fix settings of the form: its own seed and parameters give the same picture, larger";

export class Results {
  constructor(root, { upscale, share }) {
    this.pictures = [];
    this.beside = null;
    this.said = [];
    this.onUpscale = upscale;
    this.onShare = share;
    this.picturesOf = null;
    this.selected = -1;
    this.job = null;
    this.chosenByHand = false;
    this.viewer = viewer({ previous: () => this.step(-1), next: () => this.step(1) });
    this.build(root);
    this.draw();
  }

  build(root) {
    this.bar = element("div", { class: "bar" });
    this.barText = element("span", { class: "bar-text" });
    this.progress = element(
      "div", { class: "progress", id: "txt2img_progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100, hidden: true },
      this.bar, this.barText,
    );
    this.picture = element("img", { class: "picture", id: "txt2img_picture", hidden: true });
    this.zoom = element("button", { class: "zoom", type: "button", "aria-label": "Open the picture in the full-page viewer", hidden: true, on: { click: () => this.view() } }, this.picture);
    this.preview = element("img", { class: "preview", id: "txt2img_preview", alt: "Preview of the picture in the making", hidden: true });
    this.empty = element("p", { class: "empty" });
    this.stage = element("div", { class: "stage" }, this.zoom, this.preview, this.empty);
    this.thumbs = element("div", { class: "thumbs", role: "group", "aria-label": "Pictures of this job", hidden: true });
    this.gallery = element("section", { id: "txt2img_gallery", "aria-label": "Gallery" }, this.progress, this.stage, this.thumbs);
    this.gallery.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); this.step(step); }
    });
    this.alert = element("div", { class: "alert", role: "alert", hidden: true });
    this.download = element("a", { class: "action", id: "txt2img_download", download: "" }, "Download PNG");
    this.open = element("a", { class: "action", id: "txt2img_open", target: "_blank", rel: "noopener" }, "Open");
    this.copy = element("button", { class: "action", type: "button", id: "txt2img_copy_infotext", on: { click: () => this.copyInfotext() } }, "Copy parameters");
    this.upscale = element("button", { class: "action", type: "button", id: "txt2img_upscale", title: UPSCALE, on: { click: () => this.onUpscale() } }, "Upscale");
    this.share = element("button", { class: "action", type: "button", id: "txt2img_share", title: "Say who sees these pictures", on: { click: () => this.onShare(this.job, this.chosen) } }, "Share");
    this.actions = element("div", { class: "picture-actions", id: "image_buttons_txt2img", hidden: true }, this.download, this.open, this.copy, this.upscale, this.share);
    this.infotext = element("p", { class: "infotext", id: "html_info_txt2img", hidden: true });
    this.time = element("p", { class: "time", id: "html_log_txt2img", hidden: true });
    this.notes = element("ul", { class: "notes", id: "txt2img_notes", "aria-label": "Notes on this job", hidden: true });
    root.append(this.gallery, this.alert, this.actions, this.infotext, this.notes, this.time);
  }

  // A new job is on its way: the old pictures stay until there is something to show, those it goes beside longer.
  begin(beside = null) {
    this.complain(null);
    this.said = [];
    this.beside = beside;
    this.job = null;
    this.chosenByHand = false;
    this.progressTo("Sending…", 0);
  }

  // Draw the job as it stands. `active`: it is not final yet; `interrupted`: it was asked to end.
  update(view, active, interrupted = false) {
    const before = this.chosen?.id;
    this.job = view;
    // A grid may stand for its pictures: those are kept, not shown.
    const shown = view.pictures.filter((each) => each.shown !== false);
    if (shown.length > 0 || !active) {
      this.pictures = this.among(shown);
      this.picturesOf = view.id;
    }
    const kept = this.pictures.findIndex((each) => each.id === before);
    const first = this.pictures.indexOf(shown[0]);
    this.selected = this.chosenByHand && kept >= 0 ? kept : Math.max(first, Math.min(0, this.pictures.length - 1));
    if (active) this.progressTo(interrupted ? `Interrupting… ${percent(view)}%` : wording(view), percent(view));
    else this.finish(view);
    this.previewOf(view, active && !this.chosenByHand);
    this.draw();
  }

  // The job's pictures, behind the one they were made from where there is one.
  among(pictures) {
    if (!this.beside) return pictures;
    const at = this.beside.selected + 1;
    return [...this.beside.pictures.slice(0, at), ...pictures, ...this.beside.pictures.slice(at)];
  }

  // Remarks on what the form was asked for, among the notes on the job.
  say(lines) {
    this.said = lines;
    this.drawNotes();
    if (lines.length > 0) announce(lines.join(" "));
  }

  get model() {
    return this.job?.model ?? null;
  }

  progressTo(text, reached) {
    show(this.progress, true);
    this.bar.style.width = `${reached}%`;
    this.barText.textContent = text;
    this.progress.setAttribute("aria-valuenow", reached);
    this.progress.setAttribute("aria-valuetext", text);
    document.title = `[${text}] Atelier`;
  }

  finish(view) {
    this.idle();
    if (view.error) this.complain(view.error);
    const count = view.pictures.length;
    const ended = { succeeded: "Done", stopped: "Stopped", cancelled: "Cancelled", expired: "Expired", failed: "Failed" }[view.state];
    announce(`${ended}: ${count} ${count === 1 ? "picture" : "pictures"}`);
  }

  idle() {
    show(this.progress, false);
    show(this.preview, false);
    document.title = "Atelier";
  }

  previewOf(view, wanted) {
    const url = wanted ? view.progress?.preview_url : null;
    if (!url) {
      show(this.preview, false);
      this.previewUrl = null;
      return;
    }
    if (url === this.previewUrl) return;
    this.previewUrl = url;
    // Swapped once it is there, so that the picture in the making never blinks.
    const next = new Image();
    next.onload = () => {
      if (this.previewUrl !== url) return;
      this.preview.src = url;
      show(this.preview, true);
      show(this.empty, false);
      show(this.zoom, false);
    };
    next.src = url;
  }

  draw() {
    const chosen = this.pictures[this.selected];
    const previewing = !this.preview.hidden;
    show(this.zoom, Boolean(chosen) && !previewing);
    show(this.picture, Boolean(chosen));
    show(this.empty, !chosen && !previewing);
    this.empty.textContent = this.job && !this.progress.hidden ? "Waiting for the first picture" : "Your pictures appear here";
    for (const part of [this.actions, this.infotext]) show(part, Boolean(chosen));
    if (chosen) this.drawChosen(chosen);
    show(this.upscale, Boolean(chosen) && !chosen.grid);
    // What stands beside a new job's pictures is of another one.
    show(this.share, Boolean(this.job?.pictures.some((each) => each.id === chosen?.id)));
    this.drawThumbs();
    this.drawNotes();
  }

  drawChosen(chosen) {
    if (this.picture.getAttribute("src") !== chosen.url) this.picture.src = chosen.url;
    this.picture.alt = this.nameOf(this.selected);
    this.picture.width = chosen.width;
    this.picture.height = chosen.height;
    this.download.href = chosen.download_url;
    this.open.href = chosen.url;
    this.infotext.textContent = chosen.infotext;
    if (this.viewer.isOpen) this.viewer.turn(this.caption());
  }

  drawThumbs() {
    const arriving = !this.progress.hidden && this.pictures.length > 0 && this.picturesOf === this.job?.id;
    show(this.thumbs, this.pictures.length > 1 || arriving);
    const ids = this.pictures.map((each) => each.id).join();
    if (ids !== this.thumbs.dataset.ids) {
      this.thumbs.dataset.ids = ids;
      this.thumbs.replaceChildren(...this.pictures.map((each, index) => this.thumb(each, index)));
    }
    [...this.thumbs.children].forEach((button, index) => button.setAttribute("aria-pressed", String(index === this.selected)));
  }

  thumb(picture, index) {
    const image = element("img", { src: picture.url, alt: "", loading: "lazy", width: picture.width, height: picture.height });
    return element("button", { type: "button", "aria-label": this.nameOf(index), on: { click: () => this.select(index) } }, image);
  }

  drawNotes() {
    const { warnings = [], ignored = [] } = this.job?.info?.atelier ?? {};
    const theirs = ignored.filter(({ field }) => field !== ALWAYS_SENT);
    const lines = [...this.said, ...warnings.map(String), ...theirs.map(({ field, reason }) => `${field} had no effect: ${reason}.`)];
    this.notes.replaceChildren(...lines.map((line) => element("li", {}, line)));
    show(this.notes, lines.length > 0);
    const seconds = this.job && this.progress.hidden ? taken(this.job) : null;
    show(this.time, seconds !== null);
    this.time.textContent = seconds === null ? "" : `Time taken: ${seconds.toFixed(1)} sec.`;
  }

  select(index) {
    this.chosenByHand = true;
    this.selected = index;
    show(this.preview, false);
    this.draw();
  }

  step(by) {
    if (this.pictures.length === 0) return;
    this.select((this.selected + by + this.pictures.length) % this.pictures.length);
    this.thumbs.children[this.selected]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  view() {
    this.viewer.open(this.caption());
  }

  caption() {
    const { url, seed, width, height } = this.chosen;
    const what = this.chosen.grid ? "Grid" : `Seed ${seed}`;
    return { url, alt: this.nameOf(this.selected), caption: `${this.selected + 1} / ${this.pictures.length}   ${width}×${height}   ${what}` };
  }

  nameOf(index) {
    const { grid, seed } = this.pictures[index];
    const place = `${index + 1} of ${this.pictures.length}`;
    return grid ? `Grid, picture ${place}` : `Picture ${place}, seed ${seed}`;
  }

  get chosen() {
    return this.pictures[this.selected] ?? null;
  }

  async copyInfotext() {
    await navigator.clipboard.writeText(this.chosen.infotext);
    announce("Parameters copied");
    this.copy.textContent = "Copied";
    setTimeout(() => { this.copy.textContent = "Copy parameters"; }, 1500);
  }

  // Say what went wrong and what to do about it; null takes it back.
  complain(error, remedy = null) {
    this.alert.replaceChildren();
    show(this.alert, Boolean(error));
    if (!error) return;
    this.alert.append(element("p", {}, error.message));
    if (remedy) this.alert.append(element("a", { href: remedy.href }, remedy.text));
    if (error.code) this.alert.append(element("code", {}, error.code));
  }
}
