(() => {
  const root = document.documentElement, button = document.querySelector(".theme");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefers.matches);

  // A page that is opened from disk may not be allowed to remember.
  function remembered(value) {
    try {
      if (value) localStorage.setItem("morph-theme", value);
      return localStorage.getItem("morph-theme");
    } catch {
      return null;
    }
  }

  function told() {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
    button.setAttribute("aria-pressed", String(dark()));
    dispatchEvent(new Event("theme"));
  }

  const before = remembered();
  if (before === "light" || before === "dark") root.dataset.theme = before;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered(root.dataset.theme);
    told();
  });
  prefers.addEventListener("change", told);
  button.hidden = false;
  told();
})();
