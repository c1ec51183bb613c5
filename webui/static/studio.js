// The page's script: ties the form Gradio draws to the portal's jobs.
import { api, post, renewed } from "./api.js";
import { byId, present } from "./dom.js";
import { FINAL, follow } from "./follow.js";
import { filled, settled, value, write } from "./form.js";
import { gallery } from "./gallery.js";
import { tieCards } from "./cards.js";
import { chooseLook, header } from "./header.js";
import { listen } from "./keys.js";
import { nameButtons } from "./labels.js";
import { Results } from "./results.js";
import { followSize } from "./sizes.js";
import { takeParameters, tieTools } from "./tools.js";
import { tieUnits } from "./units.js";

const LOGIN = { href: "/portal/login?next=/", text: "Log in again" };
const RENEW_MS = 4 * 60 * 1000;

class Studio {
  constructor(results) {
    this.results = results;
    this.job = null;
    this.view = null;
    this.stopFollowing = null;
    this.interrupted = false;
    this.again = false;
    this.forever = false;
    this.reading = false;
    this.phase("idle");
  }

  phase(name) {
    this.state = name;
    document.body.dataset.job = name;
  }

  get running() {
    return this.state === "active";
  }

  // The Generate button was pressed; Gradio sends the form, the ticket tells what came of it.
  submitting(beside = null) {
    this.phase("submitting");
    this.results.begin(beside);
  }

  ticket(text) {
    const { job, error, notes } = JSON.parse(text);
    this.reading = false;
    if (job) this.attach(job);
    else if (error) this.fail(error);
    else this.results.say(notes);
  }

  // What the form was asked for did not work; a job that runs goes on.
  fail(error) {
    if (this.state === "submitting") this.refused(error);
    else this.results.complain(error, error.code === "not_authenticated" ? LOGIN : null);
  }

  refused(error) {
    this.keepGenerating(false);
    this.phase("idle");
    this.results.idle();
    this.results.draw();
    this.results.complain(error, error.code === "not_authenticated" ? LOGIN : null);
  }

  attach(id) {
    this.stopFollowing?.();
    this.job = id;
    this.view = null;
    this.interrupted = false;
    this.relabel();
    this.phase("active");
    this.stopFollowing = follow(id, (view) => this.saw(view), (lost) => this.lost(lost));
  }

  saw(view) {
    const over = FINAL.has(view.state);
    this.view = view;
    if (over) this.phase("idle");
    this.results.update(view, !over, this.interrupted);
    if (view.state === "failed" || view.state === "expired") this.keepGenerating(false);
    if (over && (this.again || this.forever)) {
      this.again = false;
      byId("txt2img_generate").click();
    }
  }

  lost({ error, status }) {
    this.again = false;
    this.refused(status === 401 ? { code: "not_authenticated", message: "Your session has ended. The job goes on; log in again to see it." } : error);
  }

  async act(action) {
    if (!this.running) return;
    try {
      await post(`/api/v1/jobs/${encodeURIComponent(this.job)}/actions`, { action });
    } catch ({ error }) {
      this.results.complain(error);
    }
  }

  // First press: stop after the current picture if more remain. Second press, or nothing remains: stop now.
  interrupt() {
    if (!this.running) return;
    const { pictures = 1, pictures_done: done = 0 } = this.view?.progress ?? {};
    const batch = this.view?.info?.batch_size || Number(value("txt2img_batch_size")) || 1;
    const later = !this.interrupted && pictures - done > batch;
    this.interrupted = true;
    this.relabel();
    if (this.view) this.results.update(this.view, true, true);
    this.act(later ? "finish_current" : "stop_now");
  }

  relabel() {
    byId("txt2img_interrupt")?.classList.toggle("pressed", this.interrupted);
  }

  skip() {
    this.act("skip");
  }

  generate() {
    if (this.running) {
      this.again = true;
      this.interrupted = true;
      this.relabel();
      this.act("stop_now");
    } else if (this.state === "idle") byId("txt2img_generate").click();
  }

  // One job after the other until it is taken back, or until one fails.
  keepGenerating(on) {
    this.forever = on;
    document.body.toggleAttribute("data-forever", on);
    if (on && this.state === "idle") this.generate();
  }

  // The picture on show once more with the hires settings of the form, beside the others of its job.
  async upscale() {
    const { chosen, selected, pictures, model } = this.results;
    if (!chosen || chosen.grid || this.state !== "idle") return;
    this.submitting({ pictures, selected });
    write("txt2img_upscale_source", JSON.stringify({ infotext: chosen.infotext, model }));
    await settled();
    byId("txt2img_upscale_send").click();
  }

  // After a reload: the job that runs is found again, else the last pictures are.
  async restore() {
    const active = await jobs("state=active&limit=1");
    if (active.length > 0) return this.attach(active[0].id);
    const [last] = await jobs("limit=1");
    if (last?.pictures.length && this.state === "idle") this.results.update(last, false);
  }
}

async function jobs(query) {
  const found = await api(`/api/v1/jobs?${query}`);
  return Array.isArray(found) ? found : found.jobs;
}

// Gradio keeps a refused submission to itself; without this the page would wait for ever.
function watchSubmissions(studio) {
  const send = window.fetch;
  window.fetch = async (...call) => {
    if (!String(call[0]?.url ?? call[0]).includes("/gradio_api/run/")) return send(...call);
    const awaited = studio.state === "submitting" || studio.reading;
    try {
      let answer = await send(...call);
      // A page left open outlives its access cookie: fetch a fresh one and send the form once more.
      if (answer.status === 401 && (await renewed())) answer = await send(...call);
      if (awaited && !answer.ok) studio.fail(refusal(answer.status));
      return answer;
    } catch (error) {
      if (awaited) studio.fail(refusal(0));
      throw error;
    }
  };
}

function refusal(status) {
  const messages = {
    0: "The studio does not answer. Check the connection, then try again.",
    401: "Your session has ended. Log in again; in another tab, to keep what you typed here.",
    503: "The portal does not answer. It may be restarting: try again in a moment.",
  };
  const message = messages[status] ?? "The form was refused. Check that every number is within its range, then try again.";
  return { code: { 0: "unreachable", 401: "not_authenticated" }[status] ?? `http_${status}`, message };
}

async function tieGenerate(studio) {
  const button = await present("#txt2img_generate");
  button.addEventListener("click", (event) => {
    if (studio.state === "idle") studio.submitting();
    else event.stopImmediatePropagation();
  }, true);
  const ticket = await present("#txt2img_ticket");
  new MutationObserver(() => {
    const text = ticket.textContent.trim();
    if (text.startsWith("{")) studio.ticket(text);
  }).observe(ticket, { childList: true, characterData: true, subtree: true });
}

async function start() {
  const pictures = gallery({ take: (infotext) => takeParameters(infotext) });
  header(() => pictures.open());
  nameButtons();
  const studio = new Studio(new Results(await present("#txt2img_results"), { upscale: () => studio.upscale(), share: (job, picture) => pictures.open(job, picture) }));
  watchSubmissions(studio);
  followSize();
  tieTools(studio);
  await tieCards(studio.results);
  await tieUnits(studio.results);
  await tieGenerate(studio);
  listen({
    generate: () => studio.generate(),
    interrupt: () => studio.interrupt(),
    skip: () => studio.skip(),
    running: () => studio.running,
  });
  setInterval(renewed, RENEW_MS);
  await Promise.all([filled(), studio.restore().catch(() => {})]);
  document.body.toggleAttribute("data-ready", true);
}

chooseLook();
start();
