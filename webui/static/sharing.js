// Who sees a job and its pictures: said in words before it is done.
import { api, put } from "./api.js";
import { announce, element, show } from "./dom.js";

const PRIVATE = "private";
const STUDIO = "studio";

// Who the person is and which teams they are in; asked once for each opening.
export async function circle() {
  const [me, teams] = await Promise.all([api("/api/v1/me"), api("/api/v1/me/teams")]);
  return { me, teams };
}

// What is to be read beside a picture of somebody: whose it is and who else sees it.
export function standing(job, me) {
  const whom = { studio: "everybody in the studio", team: `the team ${job.team}` }[job.visibility];
  if (job.owner !== me.username) return `${job.owner} shares this with ${whom ?? "you"}.`;
  return whom ? `You share this with ${whom}.` : "Only you see this.";
}

// A control for one job after the other: `set(job, circle)`. `changed(job)` is called once others see it or no longer do.
export function shareControl(changed) {
  const choice = element("select", { class: "seen-by", on: { change: foretell } });
  const told = element("p", { class: "hint", "aria-live": "polite" });
  const said = element("p", { class: "said bad", role: "alert", hidden: true });
  const button = element("button", { type: "submit", class: "main" }, "Share");
  const form = element("form", { class: "share" }, element("label", {}, element("span", {}, "Who sees these pictures"), choice), told, said, element("div", { class: "buttons" }, button));
  const words = element("p", { class: "hint standing" });
  let job = null;
  let around = null;

  form.addEventListener("submit", (event) => { event.preventDefault(); send(); });

  function set(one, circle) {
    [job, around] = [one, circle];
    const own = job.owner === around.me.username && around.me.permissions.includes("sharing.own");
    show(form, own);
    show(words, !own);
    show(said, false);
    words.textContent = standing(job, around.me);
    if (own) offer();
  }

  function offer() {
    const teams = around.teams.map((team) => element("option", { value: team.id }, `The team ${team.name}`));
    choice.replaceChildren(element("option", { value: PRIVATE }, "Only you"), ...teams, element("option", { value: STUDIO }, "Everybody in the studio"));
    choice.value = current();
    foretell();
  }

  // What is chosen now, as the value of an option. A team one has left is none of one's own any more.
  function current() {
    if (job.visibility !== "team") return job.visibility;
    return around.teams.find((team) => team.name === job.team)?.id ?? PRIVATE;
  }

  function foretell() {
    const same = choice.value === current();
    button.disabled = same;
    button.textContent = choice.value === PRIVATE && !same ? "Share no longer" : "Share";
    told.textContent = sentence(choice.value, same);
  }

  function sentence(value, same) {
    const count = job.pictures.length;
    const what = count === 1 ? "this picture and its prompt" : `these ${count} pictures and their prompts`;
    const see = same ? "see" : "will see";
    if (value === PRIVATE) return same ? `Only you see ${what}.` : `Nobody but you will see ${what} any more.`;
    if (value === STUDIO) return `Everybody who can log in ${same ? "sees" : "will see"} ${what}.`;
    const team = around.teams.find((each) => each.id === value);
    const others = team.members.filter((name) => name !== around.me.username);
    return others.length ? `${list(others)} ${others.length === 1 && same ? "sees" : see} ${what}, and whoever joins the team later.` : `Nobody else is in the team ${team.name} yet; whoever joins it ${see} ${what}.`;
  }

  async function send() {
    const value = choice.value;
    const wish = value === PRIVATE || value === STUDIO ? { visibility: value } : { visibility: "team", team: value };
    show(said, false);
    try {
      const now = await put(`/api/v1/sharing/job/${encodeURIComponent(job.id)}`, wish);
      job = { ...job, ...now };
      foretell();
      announce(standing(job, around.me));
      changed(job);
    } catch (refused) {
      said.textContent = refused.message;
      show(said, true);
    }
  }

  return { root: element("div", { class: "sharing" }, form, words), set };
}

function list(names) {
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
