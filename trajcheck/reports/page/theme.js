"use strict";
// Light and dark: the button #theme, and `onTheme(f)`: f is called whenever the colours have changed.
const { isDark, onTheme } = (() => {
  const root = document.documentElement, button = document.getElementById("theme"), listeners = [];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`); };
  const changed = () => { name(); listeners.forEach((listener) => listener()); };
  button.hidden = false;
  name();
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; changed(); });
  dark.addEventListener("change", changed);
  return { isDark, onTheme: (listener) => listeners.push(listener) };
})();
