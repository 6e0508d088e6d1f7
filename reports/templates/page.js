"use strict";
(() => {
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const shown = (cell) => (cell ? cell.textContent.trim().replace(/\s+/g, " ") : "");
  const value = (cell) => (cell && cell.dataset.v !== undefined ? cell.dataset.v : shown(cell));
  const number = (text) => {
    const found = /^[+-]?[\d.]+(e[+-]?\d+)?/i.exec(text.replace(/,/g, ""));
    return found ? Number(found[0]) : NaN;
  };

  const save = (name, type, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // A spreadsheet takes text that begins like this for a formula; a number may begin so.
  const quoted = (text) => `"${(/^[=+\-@\t]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text).replace(/"/g, '""')}"`;
  const csv = (table) =>
    [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map((cell) => quoted(value(cell))).join(",")).join("\r\n") + "\r\n";

  // Numbers before words, and nothing last, whichever way it is sorted.
  const order = (column, sign) => (a, b) => {
    const [x, y] = [value(a.cells[column]), value(b.cells[column])];
    const [m, n] = [number(x), number(y)];
    if (Number.isNaN(m) !== Number.isNaN(n)) return Number.isNaN(m) ? 1 : -1;
    return sign * (Number.isNaN(m) ? x.localeCompare(y, "en", { numeric: true }) : m - n);
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", title: "sort" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(order(column, up ? 1 : -1)));
      });
      head.append(button);
    });
  };

  const tools = (table) => {
    const rows = [...table.tBodies[0].rows];
    const name = table.dataset.name;
    const count = make("span", { role: "status" });
    const input = make("input", { type: "search", placeholder: "filter", size: 12 });
    input.setAttribute("aria-label", `filter the table: ${name}`);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      rows.forEach((row) => (row.hidden = !shown(row).toLowerCase().includes(wanted)));
      count.textContent = wanted ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
    });
    const button = make("button", { type: "button" }, "CSV");
    button.setAttribute("aria-label", `download as CSV: ${name}`);
    button.addEventListener("click", () => save(`${name.replace(/[^a-z0-9]+/gi, "-")}.csv`, "text/csv", csv(table)));
    const bar = make("div", { className: "tools" }, button, count);
    if (rows.length > 4) bar.prepend(input);
    table.closest(".scroll").before(bar);
  };

  document.querySelectorAll("table.grid").forEach((table) => {
    sortable(table);
    tools(table);
  });

  const stored = document.getElementById("data");
  document.querySelectorAll("[data-save]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => save(button.dataset.save, "application/json", JSON.stringify(JSON.parse(stored.textContent), null, 1) + "\n"));
  });

  document.querySelectorAll("[data-copy]").forEach((button) => {
    const code = button.previousElementSibling;
    button.hidden = false;
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        button.textContent = "selected";
      }
    });
  });

  const gallery = document.getElementById("pictures");
  if (gallery) {
    const cards = [...gallery.children];
    const choices = [...document.querySelectorAll("[data-filter]")];
    const count = document.getElementById("gallery-count");
    document.getElementById("gallery-tools").hidden = false;
    const refresh = () => {
      cards.forEach((card) => (card.hidden = choices.some((c) => c.value && card.dataset[c.dataset.filter] !== c.value)));
      count.textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} images`;
    };
    const more = document.getElementById("gallery-more");
    const unfold = () => {
      gallery.classList.remove("folded");
      more.hidden = true;
    };
    if (cards.length > 8) {
      gallery.classList.add("folded"); // on a phone alone, by the style
      more.hidden = false;
      more.addEventListener("click", () => {
        unfold();
        gallery.focus({ preventScroll: true });
      });
    }
    choices.forEach((choice) => choice.addEventListener("change", () => {
      unfold();
      refresh();
    }));
    refresh();
    cards.forEach((card) => {
      const button = card.querySelector("button");
      button.hidden = false;
      button.addEventListener("click", () => {
        const large = card.classList.toggle("large");
        button.setAttribute("aria-expanded", String(large));
        button.firstChild.data = large ? "smaller" : "larger";
      });
    });
  }

  // On paper nothing unfolds: print what is folded, but no table of a thousand images.
  const unfolded = new Set();
  addEventListener("beforeprint", () =>
    document.querySelectorAll("details:not([open])").forEach((part) => {
      if (part.querySelectorAll("tr").length > 100) return;
      part.open = true;
      unfolded.add(part);
    }));
  addEventListener("afterprint", () => {
    unfolded.forEach((part) => (part.open = false));
    unfolded.clear();
  });
})();
