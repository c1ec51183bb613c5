// Users are looked after by the portal's own page, shown in a frame of the same origin: no second form, no second right.
import { element } from "./dom.js";

const PAGES = [["Users", "/portal/users", "users.manage"], ["Roles", "/portal/roles", "roles.manage"], ["Teams", "/portal/teams", "teams.manage"], ["Access", "/portal/access", "access.manage"]];

// A button for the header that opens the pages the person may use; null where there is none.
export function peopleButton(permissions) {
  const pages = PAGES.filter(([, , permission]) => permissions.includes(permission));
  if (pages.length === 0) return null;
  const frame = element("iframe", { title: "Users", name: "people" });
  const close = element("button", { type: "button", class: "main", on: { click: () => dialog.close() } }, "Close");
  const links = pages.map(([text, href]) => element("a", { class: "plain", href, target: "people" }, text));
  const dialog = element(
    "dialog", { class: "sheet people", id: "atelier_people", "aria-label": "Users" },
    element("div", { class: "between" }, element("nav", { "aria-label": "People" }, ...links), element("div", { class: "buttons" }, close)),
    frame,
  );
  document.body.append(dialog);
  const show = () => {
    if (!frame.getAttribute("src")) frame.src = pages[0][1];
    dialog.showModal();
  };
  return element("button", { class: "plain", type: "button", id: "atelier_people_button", on: { click: show } }, pages[0][0]);
}
