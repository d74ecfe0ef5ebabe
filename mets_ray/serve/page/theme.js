// Light or dark: as the system has it, or as chosen on this page. No module: it runs before the page is drawn for the
// first time, so that a dark page never flashes white. Whoever draws on a canvas listens for `themechange`.
{
  const KEY = "mets_ray_theme";
  const THEMES = ["light", "dark"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;

  const read = () => {
    try {
      chosen = localStorage.getItem(KEY);
    } catch {
      chosen = null; // storage may be forbidden
    }
    if (!THEMES.includes(chosen)) chosen = null;
  };
  const keep = () => {
    try {
      if (chosen) localStorage.setItem(KEY, chosen);
      else localStorage.removeItem(KEY);
    } catch {
      // It holds until the page is closed.
    }
  };
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    dispatchEvent(new Event("themechange"));
  };
  const apply = () => {
    show(chosen ?? (system.matches ? "dark" : "light"));
    const select = document.getElementById("theme");
    if (select) select.value = chosen ?? "";
  };

  read();
  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", (event) => {
    if (event.key !== KEY && event.key !== null) return;
    read();
    apply();
  });
  addEventListener("beforeprint", () => show("light"));
  addEventListener("afterprint", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").onchange = (event) => {
      chosen = event.target.value || null;
      keep();
      apply();
    };
  });
}
