// The bar above everything: whose studio this is, the way to the portal, the look, and out.
import { api } from "./api.js";
import { element } from "./dom.js";
import { peopleButton } from "./people.js";

const LOOK = "atelier.look";

// Before Gradio decides: it reads the look from the address, the person's own choice comes first.
export function chooseLook() {
  const address = new URL(location.href);
  const asked = address.searchParams.get("__theme");
  const look = asked ?? localStorage.getItem(LOOK);
  if (look !== "dark" && look !== "light") return;
  if (!asked) {
    address.searchParams.set("__theme", look);
    history.replaceState(null, "", address);
  }
  document.documentElement.dataset.look = look;
}

function otherLook() {
  const look = document.body.classList.toggle("dark") ? "dark" : "light";
  localStorage.setItem(LOOK, look);
  document.documentElement.dataset.look = look;
  const address = new URL(location.href);
  address.searchParams.set("__theme", look);
  history.replaceState(null, "", address);
}

// `pictures` opens the gallery.
export function header(pictures) {
  const user = element("span", { class: "user", id: "atelier_user" });
  const portal = element("a", { class: "plain", href: "/portal/" }, "Portal");
  const bar = element(
    "header", { id: "atelier_header" },
    element("a", { class: "wordmark", href: "/" }, element("img", { src: "/ui/mark.svg", alt: "", width: 20, height: 20 }), "Atelier"),
    element(
      "nav", { "aria-label": "Account" },
      user,
      element("button", { class: "plain", type: "button", id: "atelier_gallery_button", on: { click: () => pictures() } }, "Gallery"),
      element("button", { class: "plain look", type: "button", title: "Dark or light", on: { click: otherLook } }, "Dark or light"),
      portal,
      element("form", { method: "post", action: "/portal/logout" }, element("button", { class: "plain", id: "atelier_logout" }, "Log out")),
    ),
  );
  document.body.prepend(bar);
  api("/api/v1/me").then(
    (me) => {
      user.textContent = me.username;
      user.title = `Logged in as ${me.username} (${me.role})`;
      const people = peopleButton(me.permissions);
      if (people) portal.before(people);
    },
    () => { user.textContent = "not logged in"; },
  );
}
