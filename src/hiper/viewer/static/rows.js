// The index of a run's episodes in the page: it grows while the server reads files, and outlives a change of view.

import { get } from "./api.js";

const known = new Map();

export function indexOf(run) {
  if (!known.has(run)) known.set(run, new Rows(run));
  return known.get(run);
}

class Rows {
  constructor(run) {
    this.run = run;
    this.files = new Map();
    this.sequence = 0;
    this.done = 0;
    this.compared = 0;
    this.of = 0;
    this.all = [];
    this.problems = [];
  }

  // Asks for what is new; true: something was.
  async update() {
    const found = await get("episodes", { run: this.run, after: this.sequence });
    if (found.sequence < this.sequence) { // another server, which counts anew
      this.sequence = 0;
      this.files.clear();
      return this.update();
    }
    const before = `${this.done}/${this.compared}/${this.of}`;
    this.done = found.done;
    this.of = found.of;
    this.compared = found.compared;
    if (!found.files.length) return before !== `${this.done}/${this.compared}/${this.of}`;
    this.sequence = found.sequence;
    for (const file of found.files) {
      const rows = file.rows.map((row) => {
        const made = { file: file.name, iteration: file.iteration, split: file.split };
        found.columns.forEach((column, n) => { made[column] = row[n]; });
        return made;
      });
      this.files.set(file.name, { rows, note: file.note });
    }
    this.all = [...this.files.values()].flatMap((file) => file.rows);
    this.problems = [...this.files].filter(([, file]) => file.note).map(([name, file]) => (file.note.includes(name) ? file.note : `${name}: ${file.note}`));
    return true;
  }

  get complete() {
    return this.done >= this.of;
  }

  get settled() {
    return this.compared >= this.of;
  }

  inFile(file) {
    return this.files.get(file)?.rows || [];
  }
}
