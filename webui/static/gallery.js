// All pictures one may see, in a dialog: one's own, and what others share.
import { api, Refused } from "./api.js";
import { announce, element, show } from "./dom.js";
import { circle, shareControl, standing } from "./sharing.js";

const SHELVES = [
  ["mine", "Mine", "You have no pictures yet. Press Generate, and they appear here."],
  ["shared", "Shared with me", "Nobody shares pictures with you yet."],
  ["team", "My teams", "Nobody has shared pictures with a team of yours yet."],
  ["studio", "Studio", "Nobody has shared pictures with the whole studio yet."],
];
const PAGE = 24;

// Returns { open(job): the dialog, at a job where one is given }. `take(infotext)` puts parameters into the form.
export function gallery({ take }) {
  const shelves = element("div", { class: "shelves", role: "radiogroup", "aria-label": "Whose pictures" }, ...SHELVES.map(([shelf, name]) => tab(shelf, name)));
  const queue = element("p", { class: "hint queue", hidden: true });
  const grid = element("div", { class: "gallery-grid" });
  const nothing = element("p", { class: "hint nothing", hidden: true });
  const more = element("button", { type: "button", on: { click: () => attempt(turn) } }, "Show more");
  const wrong = element("p", { class: "said bad", role: "alert", hidden: true });
  const image = element("img", { alt: "" });
  const text = element("p", { class: "infotext" });
  const download = element("a", { class: "button", download: "" }, "Download PNG");
  const use = element("button", { type: "button", on: { click: apply } }, "Use its parameters");
  const back = element("button", { type: "button", on: { click: () => look(null) } }, "Back to all");
  const share = shareControl(changed);
  const detail = element("section", { class: "gallery-detail", "aria-label": "The chosen picture", hidden: true }, element("div", { class: "frame" }, image), element("div", { class: "beside" }, share.root, element("div", { class: "buttons" }, download, use, back), text));
  const close = element("button", { type: "button", on: { click: () => dialog.close() } }, "Close");
  const overview = element("section", { "aria-label": "Pictures" }, grid, nothing, element("div", { class: "buttons" }, more));
  const dialog = element(
    "dialog", { class: "sheet gallery", id: "atelier_gallery", "aria-labelledby": "gallery-title" },
    element("div", { class: "between" }, element("h2", { id: "gallery-title" }, "Gallery"), element("div", { class: "buttons" }, close)),
    shelves, queue, wrong, overview, detail,
  );
  document.body.append(dialog);
  let around = null;
  let shelf = "mine";
  let next = null;
  let reading = 0;
  let chosen = null;

  function tab(value, name) {
    const input = element("input", { type: "radio", name: "shelf", value, checked: value === "mine", on: { change: () => { shelf = value; look(null); attempt(fill); } } });
    return element("label", {}, input, element("span", {}, name));
  }

  async function fill() {
    next = null;
    grid.replaceChildren();
    await turn();
  }

  // The next page with a picture in it: jobs that made none fill no page.
  async function turn() {
    const mine = ++reading;
    let found = [];
    do {
      const page = await api(`/api/v1/jobs?shown=${shelf}&limit=${PAGE}${next ? `&cursor=${next}` : ""}`);
      if (mine !== reading) return;
      next = page.next;
      found = page.jobs.flatMap((job) => job.pictures.filter((each) => each.shown !== false).map((picture) => card(job, picture)));
      grid.append(...found);
    } while (found.length === 0 && next);
    show(more, Boolean(next));
    show(nothing, grid.children.length === 0);
    nothing.textContent = SHELVES.find(([each]) => each === shelf)[2];
  }

  function card(job, picture) {
    const words = standing(job, around.me);
    const picked = element("img", { src: picture.url, alt: "", loading: "lazy", width: picture.width, height: picture.height });
    const label = element("span", { class: "of" }, job.owner === around.me.username ? (job.team ?? (job.visibility === "studio" ? "Studio" : "")) : job.owner);
    return element("button", { type: "button", title: words, "aria-label": `${picture.grid ? "Grid" : `Picture, seed ${picture.seed}`}. ${words}`, on: { click: () => look(job, picture) } }, picked, label);
  }

  function look(job, picture = null) {
    chosen = picture;
    show(detail, Boolean(job));
    show(overview, !job);
    if (!job) return;
    [image.src, image.alt] = [picture.url, picture.grid ? "Grid" : `Picture, seed ${picture.seed}`];
    [download.href, text.textContent] = [picture.download_url, picture.infotext];
    share.set(job, around);
    back.focus();
  }

  function changed(job) {
    announce(standing(job, around.me));
    attempt(fill);
  }

  function apply() {
    dialog.close();
    take(chosen.infotext);
  }

  // Of the queue, others' entries show their place and nothing else.
  async function count() {
    const { waiting, entries } = await api("/api/v1/jobs/queue");
    const own = entries.filter((each) => each.job).map((each) => each.position);
    show(queue, waiting > 0);
    queue.textContent = `${waiting} ${waiting === 1 ? "job waits" : "jobs wait"} in the studio. ${own.length ? `Yours: place ${own.join(", ")}.` : "None is yours."}`;
  }

  async function attempt(act) {
    show(wrong, false);
    try {
      await act();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      wrong.textContent = refused.message;
      show(wrong, true);
    }
  }

  return {
    open(job = null, picture = null) {
      dialog.showModal();
      look(null);
      attempt(async () => {
        around = await circle();
        await Promise.all([fill(), count()]);
        if (job) look(job, picture);
      });
    },
  };
}
