// Click a column's head to sort by it: numbers by value (missing ones last), text by the alphabet.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const text = head.classList.contains("text"), column = [...head.parentElement.children].indexOf(head);
    const up = head.getAttribute("aria-sort") === (text ? "ascending" : "descending") ? text ? -1 : 1 : text ? 1 : -1;
    const key = (row) => {
      let at = 0; // a cell that spans several columns stands for each of them
      for (const cell of row.cells) { at += cell.colSpan; if (at > column) return cell.dataset.value ?? cell.textContent; }
      return "";
    };
    const number = (row) => parseFloat(key(row).replaceAll(",", "").replace("−", "-"));
    const rows = [...body.rows];
    rows.sort((a, b) => {
      if (text) return up * key(a).localeCompare(key(b));
      const [x, y] = [number(a), number(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return up * (x - y);
    });
    body.append(...rows);
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
  });
}

// Rows and data sets that are not asked for are put out of sight, wherever they stand.
const filter = document.querySelector(".filter");
if (filter) {
  const form = filter.querySelector("form"), boxes = [...form.querySelectorAll("input")];
  const apply = () => {
    const out = (kind) => new Set(boxes.filter((box) => box.name === kind && !box.checked).map((box) => box.value));
    const rows = out("row"), sets = out("set");
    for (const part of document.querySelectorAll("[data-row], [data-set]")) {
      part.classList.toggle("out", rows.has(part.dataset.row) || sets.has(part.dataset.set));
    }
    filter.classList.toggle("active", rows.size + sets.size > 0);
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply)); // after the boxes have changed
  filter.addEventListener("keydown", (event) => { if (event.key === "Escape") filter.open = false; });
  document.addEventListener("click", (event) => { if (!filter.contains(event.target)) filter.open = false; });
  filter.hidden = false;
}

// A number that was followed to its runs: all their rows are marked, and a folded part that holds the place is opened.
function mark() {
  const cell = decodeURIComponent(location.hash.slice(1));
  for (const row of document.querySelectorAll("tr[data-cell]")) row.classList.toggle("asked", row.dataset.cell === cell);
  const folded = cell && document.getElementById(cell)?.closest("details");
  if (folded) folded.open = true;
}
addEventListener("hashchange", mark);
mark();

// Paper has no folded parts, but for the list of hashes.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("main details:not(.back)")) part.open = true;
});
