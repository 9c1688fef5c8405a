// Names the column of each cell, which a phone shows in place of the head of the table.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.docutils")) {
    const columns = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => {
        if (columns[index] && cell.textContent.trim()) cell.dataset.column = columns[index];
      });
    }
  }
});
