"use strict";
// Light or dark: what the reader chose, else what the system says.
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("theme"); } catch { /* nothing can be kept */ }
if (chosen) root.dataset.theme = chosen;

document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (system.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
  });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => {
      const text = button.previousElementSibling.textContent;
      const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
      const select = () => getSelection().selectAllChildren(button.previousElementSibling);
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, select);
      else select();
    });
  }
  for (const header of document.querySelectorAll("th button")) {
    header.addEventListener("click", () => sort(header.closest("th")));
  }
  // A frame that scrolls can be reached by the keyboard; one that does not, need not.
  const frames = document.querySelectorAll(".frame");
  const reach = () => frames.forEach((frame) => {
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0; else frame.removeAttribute("tabindex");
  });
  reach();
  addEventListener("resize", reach);
  addEventListener("toggle", reach, true);
});

function sort(th) {
  const table = th.closest("table");
  const column = [...th.parentElement.children].indexOf(th);
  const down = th.getAttribute("aria-sort") === "descending" || (!th.hasAttribute("aria-sort") && th.classList.contains("text"));
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", down ? "ascending" : "descending");
  const key = (row) => row.children[column].dataset.sort ?? row.children[column].textContent.trim();
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not known comes last
    const by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? by : -by;
  };
  for (const body of table.tBodies) body.append(...[...body.rows].sort(order));
}
