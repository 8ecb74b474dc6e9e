/** The places of the page, each with an address. */

export type Route =
  | { place: "draw" }
  | { place: "edit"; picture: string }
  | { place: "scene"; picture: string | null }
  | { place: "grid"; grid: string }
  | { place: "gallery" }
  | { place: "teach" };

export function parsed(path: string): Route {
  const [first, second] = path.split("/").filter(Boolean);
  if (first === "gallery" || first === "teach") return { place: first };
  if (first === "edit" && second !== undefined) return { place: "edit", picture: decodeURIComponent(second) };
  if (first === "scene")
    return { place: "scene", picture: second === undefined ? null : decodeURIComponent(second) };
  if (first === "grid" && second !== undefined) return { place: "grid", grid: decodeURIComponent(second) };
  return { place: "draw" };
}

export const paths = {
  draw: "/",
  gallery: "/gallery",
  teach: "/teach",
  /** A picture in the gallery. */
  picture: (picture: string): string => `/gallery?picture=${encodeURIComponent(picture)}`,
  grid: (grid: string): string => `/grid/${encodeURIComponent(grid)}`,
  edit: (picture: string): string => `/edit/${encodeURIComponent(picture)}`,
  /** The scene of a picture; without one that which was last worked on. */
  scene: (picture?: string): string =>
    picture === undefined ? "/scene" : `/scene/${encodeURIComponent(picture)}`,
};

class Router {
  #url = $state(new URL("http://localhost/"));
  #path = $derived(this.#url.pathname);
  /** The same object while only what is after `?` changes, so that nothing that follows it begins anew. */
  route: Route = $derived(parsed(this.#path));

  /** The part of the address after `?`, such as the gallery's search. */
  get query(): URLSearchParams {
    return this.#url.searchParams;
  }

  /** Follow the address bar and every link of the page, until the function that is returned is called. */
  start(): () => void {
    const follow = () => {
      this.#url = new URL(location.href);
    };
    const onClick = (event: MouseEvent) => {
      if (event.defaultPrevented || event.button !== 0) return;
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = event.target instanceof Element ? event.target.closest("a") : null;
      if (link === null || link.target !== "" || link.hasAttribute("download")) return;
      const url = new URL(link.href);
      if (url.origin !== location.origin || url.pathname.startsWith("/api/")) return;
      if (url.hash !== "") return; // a place on the page that is shown
      event.preventDefault();
      this.go(url.pathname + url.search);
    };
    follow();
    window.addEventListener("popstate", follow);
    document.addEventListener("click", onClick);
    return () => {
      window.removeEventListener("popstate", follow);
      document.removeEventListener("click", onClick);
    };
  }

  /** Go to an address of the page. With `replace`, back leads to where one was before this one. */
  go(address: string, { replace = false } = {}): void {
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    const before = this.#url.pathname;
    this.#url = new URL(location.href);
    if (before !== this.#url.pathname) window.scrollTo(0, 0);
  }

  /** Change what is after `?`; an empty value leaves. */
  search(change: Record<string, string | null>): void {
    // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it lives within this call
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(change)) {
      if (value === null || value === "") query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    this.go(this.#url.pathname + (text && `?${text}`), { replace: true });
  }
}

export const router = new Router();
