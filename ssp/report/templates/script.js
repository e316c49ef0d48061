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

// A number that was followed to its runs: all their rows are marked.
function mark() {
  const cell = decodeURIComponent(location.hash.slice(1));
  for (const row of document.querySelectorAll("tr[data-cell]")) row.classList.toggle("asked", row.dataset.cell === cell);
}
addEventListener("hashchange", mark);
mark();

// Paper has no folded parts.
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
