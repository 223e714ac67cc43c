// Sorts and filters tables, and copies them as CSV. Without it they are plain tables in the order of the plan.
(() => {
  "use strict";
  const DASH = "—";
  const rowsOf = (table) => [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.matches(".group"));

  // The cell of a row under the given column; none where a reason stands in place of numbers.
  const cellAt = (row, column) => {
    let at = 0;
    for (const cell of row.cells) {
      if (at === column) return cell.colSpan > 1 ? null : cell;
      at += cell.colSpan;
      if (at > column) return null;
    }
    return null;
  };

  const textOf = (cell) => {
    if (!cell || cell.querySelector(".none")) return "";
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".vh, .scenario").forEach((one) => one.remove());
    return copy.textContent.trim().replace(/\s+/g, " ");
  };

  const keyOf = (cell) => {
    const text = textOf(cell);
    if (!text || text === DASH) return null;
    const number = cell.dataset.n ?? text.replaceAll(",", "").replace("−", "-");
    return /^[-+]?[\d.]+(e[-+]?\d+)?$/i.test(number) ? Number(number) : text;
  };

  const compare = (one, two) =>
    typeof one === "number" && typeof two === "number" ? one - two : String(one).localeCompare(String(two), "en", { numeric: true });

  const makeSortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
    const all = rowsOf(table);

    const restore = () => {
      table.classList.remove("flat");
      bodies.forEach(([body, rows]) => body.append(...rows));
    };
    const sort = (column, falling) => {
      const keyed = all.map((row) => [row, keyOf(cellAt(row, column))]);
      const known = keyed.filter(([, key]) => key !== null).sort((one, two) => compare(one[1], two[1]) * (falling ? -1 : 1));
      const unknown = keyed.filter(([, key]) => key === null);
      table.classList.add("flat");
      table.tBodies[0].append(...known.concat(unknown).map(([row]) => row));
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: null }[head.ariaSort] ?? (head.ariaSort ? null : "ascending");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (!next) return restore();
        head.setAttribute("aria-sort", next);
        sort(column, next === "descending");
      });
    });
  };

  const titleOf = (head) => {
    const unit = head.querySelector("small")?.textContent.trim();
    const name = [...head.querySelectorAll("button")].concat(head)[0].firstChild.textContent.trim();
    return unit ? `${name} (${unit})` : name;
  };

  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const csvOf = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const named = table.matches(".matrix");
    const lines = rowsOf(table).filter((row) => !row.hidden).map((row) => {
      const values = heads.map((_, column) => {
        const cell = cellAt(row, column);
        return cell?.dataset.n ?? textOf(cell).replace(/^[-+−]?[\d,.]+$/, (one) => one.replaceAll(",", "").replace("−", "-"));
      });
      return named ? [row.title, ...values, textOf(row.querySelector(".reason"))] : values;
    });
    const first = named ? ["Cell", ...heads.map(titleOf), "Reason"] : heads.map(titleOf);
    return [first, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const table = button.dataset.table ? document.getElementById(button.dataset.table) : button.previousElementSibling.querySelector("table");
      await copy(csvOf(table));
      const words = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = words), 1500);
    });
  });

  const matrix = document.getElementById("matrix");
  if (!matrix) return;
  const find = document.getElementById("find");
  const chips = [...document.querySelectorAll(".chip")];
  const wordsOf = (row) => [row.title, ...[...row.querySelectorAll(".shape, .path, .reason, .status")].map((one) => one.textContent)].join(" ");
  const rows = rowsOf(matrix).map((row) => [row, ` ${wordsOf(row).toLowerCase()}`]);
  // A word is found at the start of a word: "8" is in "batch 8" and not in "128".
  const has = (text, word) => {
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) if (!/[a-z0-9]/.test(text[at - 1])) return true;
    return false;
  };
  const pressed = (kind) => chips.filter((chip) => chip.ariaPressed === "true" && chip.dataset[kind]).map((chip) => chip.dataset[kind]);

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [paths, statuses] = [pressed("path"), pressed("status")];
    let shown = 0;
    for (const [row, text] of rows) {
      const kept =
        words.every((word) => has(text, word)) &&
        (!paths.length || paths.includes(row.dataset.path)) &&
        (!statuses.length || statuses.includes(row.dataset.status));
      row.hidden = !kept;
      shown += kept;
    }
    for (const group of matrix.querySelectorAll("tr.group"))
      group.hidden = ![...group.parentElement.rows].some((row) => row !== group && !row.hidden);
    const noun = matrix.dataset.noun ?? "cell";
    const all = rows.length === 1 ? `1 ${noun}` : `${rows.length} ${noun}s`;
    document.getElementById("found").textContent = shown === rows.length ? all : `${shown} of ${all}`;
  };
  find.addEventListener("input", filter);
  chips.forEach((chip) =>
    chip.addEventListener("click", () => {
      chip.ariaPressed = chip.ariaPressed === "true" ? "false" : "true";
      filter();
    }),
  );
  filter();
})();
