"use strict";
(() => {
  const SECONDS = 6;  // that a rollout takes at speed 1
  const MAPS = Object.fromEntries(
    Object.entries(JSON.parse(document.getElementById("maps").textContent)).map(([name, text]) => [name, bytes(text)]));
  const ERRORS = document.getElementById("maps").dataset.errors;  // their colours
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const players = [];

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  async function unpack(text) {
    const packed = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(packed).arrayBuffer());
  }

  function shown(value) {
    if (!Number.isFinite(value)) return "no value";
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
  }

  function property(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // What var(name) looks like here and now, light or dark.
  function colour(root, name) {
    const probe = root.querySelector(".strip");
    probe.style.color = `var(${name})`;
    const found = getComputedStyle(probe).color;
    probe.style.color = "";
    return found;
  }

  class Player {
    constructor(root) {
      this.root = root;
      this.meta = JSON.parse(root.querySelector("[data-meta]").textContent);
      this.choice = { component: 0, model: 0, trajectory: 0, view: 0, plane: 0, speed: 1 };
      this.frame = 0;
      this.timer = 0;
      this.line = root.classList.contains("line");
      this.screens = Object.fromEntries([...root.querySelectorAll("[data-screen]")].map((one) => [one.dataset.screen, one]));
      this.button = root.querySelector(".play");
      this.scrub = root.querySelector(".scrub");
      this.button.addEventListener("click", () => this.toggle());
      this.scrub.addEventListener("input", () => { this.pause(); this.show(Number(this.scrub.value)); });
      for (const select of root.querySelectorAll("[data-choice]")) {
        select.addEventListener("change", () => this.choose(select.dataset.choice, Number(select.value)));
      }
      for (const name of ["truth", "prediction", "error"]) {
        this.screens[name].addEventListener("pointermove", (event) => this.point(event));
        this.screens[name].addEventListener("pointerdown", (event) => this.point(event));
      }
      this.choose("view", 0);
    }

    async load() {
      this.loading ??= unpack(this.root.querySelector("[data-bytes]").textContent).then((codes) => this.sum(codes));
      this.codes = await this.loading;
      this.draw();
    }

    // The codes from their differences along columns and along time (modulo 256), and where each component's and view's
    // begin, in the order in which they were packed.
    sum(codes) {
      const { components, views, models, trajectories, lead } = this.meta;
      let at = 0;
      this.starts = components.map(() => views.map((view) => {
        const start = at, columns = view.x.length, frame = view.planes.length * view.y.length * columns;
        at += (1 + models.length) * trajectories * lead.length * frame;
        for (let i = start; i < at; i++) if ((i - start) % columns) codes[i] += codes[i - 1];
        for (let i = start; i < at; i++) if (Math.floor((i - start) / frame) % lead.length) codes[i] += codes[i - frame];
        return start;
      }));
      return codes;
    }

    // Codes of one frame: of the truth (0), or the error of a model (1, 2, ...).
    codesOf(source, frame) {
      const { component, view, trajectory, plane } = this.choice;
      const { views, trajectories, lead } = this.meta;
      const one = views[view], size = one.y.length * one.x.length;
      const number = ((source * trajectories + trajectory) * lead.length + frame) * one.planes.length + plane;
      const start = this.starts[component][view] + number * size;
      return this.codes.subarray(start, start + size);
    }

    values(name, frame) {
      const one = this.meta.components[this.choice.component], { model } = this.choice;
      const truth = this.codesOf(0, frame), error = this.codesOf(1 + model, frame);
      const step = one.errors[model] / 127, width = one.high - one.low;
      return Float64Array.from(truth, (code, i) => {
        if (name === "truth") return code === 255 ? NaN : one.low + width * code / 254;
        if (error[i] === 255) return NaN;
        const difference = step * (error[i] - 127);
        return name === "error" ? difference : one.low + width * code / 254 + difference;
      });
    }

    choose(what, value) {
      this.choice[what] = value;
      if (what === "view") {
        const view = this.meta.views[value];
        this.choice.plane = Math.floor(view.planes.length / 2);
        const planes = this.root.querySelector("[data-choice=plane]");
        planes?.replaceChildren(...view.planes.map((place, i) =>
          new Option(`${view.axis} = ${shown(place)}`, i, false, i === this.choice.plane)));
        if (!this.line) {
          for (const screen of Object.values(this.screens)) {
            screen.style.aspectRatio = view.aspect;
            screen.closest("figure").style.maxWidth = `${21 * Math.max(1, view.aspect)}rem`;
          }
        }
      }
      const one = this.meta.components[this.choice.component];
      this.label("field", one.map, [one.low, (one.low + one.high) / 2, one.high], one.unit);
      this.label("error", ERRORS, [-one.error, 0, one.error], one.unit);
      const clipped = this.root.querySelector(".clipped"), note = one.notes[this.choice.model];
      this.root.querySelector(".predicted line")?.setAttribute("stroke", `var(${this.meta.lines[this.choice.model]})`);
      clipped.hidden = !note;
      clipped.textContent = note && `${this.meta.models[this.choice.model]}, ${one.name}: ${note}.`;
      if (this.codes && what !== "speed") this.draw();
    }

    label(name, map, places, unit) {
      const bar = this.root.querySelector(`[data-bar=${name}]`);
      bar.querySelector(".strip").style.backgroundImage = `var(--map-${map})`;
      bar.querySelectorAll(".ends span").forEach((end, i) => {
        end.textContent = shown(places[i]) + (i === 2 && unit ? ` ${unit}` : "");
      });
    }

    show(frame) {
      this.frame = frame;
      this.scrub.value = frame;
      const text = `lead time ${shown(this.meta.lead[frame])}`;
      this.root.querySelector(".time").textContent = text;
      this.scrub.setAttribute("aria-valuetext", text);
      if (!this.codes) return;
      if (this.line) {
        this.profile();
        for (const now of this.root.querySelectorAll(".now")) {
          now.style.bottom = `${100 * (frame + 0.5) / this.meta.lead.length}%`;
        }
      } else {
        for (const name of ["truth", "prediction", "error"]) this.paint(name, [this.values(name, frame)], this.meta.views[this.choice.view].y.length);
      }
    }

    draw() {
      if (this.line) {
        const frames = this.meta.lead.map((_, i) => i);
        for (const name of ["truth", "prediction", "error"]) this.paint(name, frames.map((i) => this.values(name, i)), frames.length);
      }
      this.show(this.frame);
    }

    // Values as an image; its first row is the lowest.
    paint(name, parts, rows) {
      const canvas = this.screens[name], columns = this.meta.views[this.choice.view].x.length;
      const one = this.meta.components[this.choice.component];
      const map = MAPS[name === "error" ? ERRORS : one.map];
      const [low, high] = name === "error" ? [-one.error, one.error] : [one.low, one.high];
      const none = property("--no-data").match(/\w\w/g).map((part) => parseInt(part, 16));
      canvas.width = columns;
      canvas.height = rows;
      const image = new ImageData(columns, rows);
      for (let i = 0; i < rows * columns; i++) {
        const value = parts.length > 1 ? parts[Math.floor(i / columns)][i % columns] : parts[0][i];
        const at = 4 * ((rows - 1 - Math.floor(i / columns)) * columns + i % columns);
        const code = 3 * Math.min(254, Math.max(0, Math.floor(254 * (value - low) / (high - low) + 0.5)));
        for (let c = 0; c < 3; c++) image.data[at + c] = Number.isNaN(value) ? none[c] : map[code + c];
        image.data[at + 3] = 255;
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
    }

    profile() {
      const canvas = this.screens.profile, scale = devicePixelRatio || 1;
      const width = canvas.clientWidth, height = canvas.clientHeight;
      canvas.width = width * scale;
      canvas.height = height * scale;
      const pen = canvas.getContext("2d"), one = this.meta.components[this.choice.component];
      pen.scale(scale, scale);
      const ink = colour(this.root, "--ink"), muted = colour(this.root, "--muted"), rule = colour(this.root, "--rule");
      const left = 46, bottom = 22, top = 8, margin = 0.06 * (one.high - one.low);
      const low = one.low - margin, high = one.high + margin, view = this.meta.views[0];
      const x = (i) => left + (width - left - 6) * (view.x.length > 1 ? i / (view.x.length - 1) : 0.5);
      const y = (value) => top + (height - top - bottom) * (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low));
      pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
      pen.lineWidth = 1;
      for (const value of [one.low, (one.low + one.high) / 2, one.high]) {
        pen.strokeStyle = rule;
        pen.beginPath(); pen.moveTo(left, y(value)); pen.lineTo(width, y(value)); pen.stroke();
        pen.fillStyle = muted;
        pen.textAlign = "right";
        pen.fillText(shown(value), left - 6, y(value) + 4);
      }
      pen.textAlign = "left";
      pen.fillText(shown(view.x[0]), left, height - 5);
      pen.textAlign = "center";
      pen.fillText(view.columns, (left + width) / 2, height - 5);
      pen.textAlign = "right";
      pen.fillText(shown(view.x[view.x.length - 1]), width - 2, height - 5);
      const line = (values, stroke, thick, alpha) => {
        pen.beginPath();
        let drawn = false;
        values.forEach((value, i) => {
          if (Number.isNaN(value)) { drawn = false; return; }
          if (drawn) pen.lineTo(x(i), y(value)); else pen.moveTo(x(i), y(value));
          drawn = true;
        });
        pen.strokeStyle = stroke;
        pen.lineWidth = thick;
        pen.globalAlpha = alpha;
        pen.lineJoin = "round";
        pen.stroke();
        pen.globalAlpha = 1;
      };
      line(this.values("truth", this.frame), ink, 3, 0.45);
      line(this.values("prediction", this.frame), colour(this.root, this.meta.lines[this.choice.model]), 1.8, 1);
    }

    point(event) {
      if (!this.codes) return;
      const box = event.target.getBoundingClientRect(), view = this.meta.views[this.choice.view];
      const rows = event.target.height, columns = event.target.width;
      const column = Math.min(columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * columns)));
      const row = Math.min(rows - 1, Math.max(0, Math.floor((box.bottom - event.clientY) / box.height * rows)));
      const frame = this.line ? row : this.frame, at = this.line ? column : row * columns + column;
      const [truth, prediction, error] = ["truth", "prediction", "error"].map((name) => shown(this.values(name, frame)[at]));
      const place = this.line ? `lead time ${shown(this.meta.lead[row])}` : `${view.rows} = ${shown(view.y[row])}`;
      this.root.querySelector(".value").textContent =
        `${view.columns} = ${shown(view.x[column])}, ${place}: truth ${truth}, prediction ${prediction}, error ${error}`;
    }

    toggle() {
      if (this.timer) this.pause(); else this.play();
    }

    play() {
      if (!this.codes) return;
      players.forEach((other) => other.pause());
      let due = performance.now();
      const next = (now) => {
        if (now >= due) {
          const last = this.frame === this.meta.lead.length - 1;
          this.show(last ? 0 : this.frame + 1);
          const usual = Math.min(400, Math.max(50, 1000 * SECONDS / this.meta.lead.length)) / this.choice.speed;
          const pace = still.matches ? Math.max(usual, 700) : usual;
          due = now + (this.frame === this.meta.lead.length - 1 ? Math.max(pace, 900) : pace);
        }
        this.timer = requestAnimationFrame(next);
      };
      this.timer = requestAnimationFrame(next);
      this.told(true);
    }

    pause() {
      cancelAnimationFrame(this.timer);
      this.timer = 0;
      this.told(false);
    }

    told(playing) {
      this.button.textContent = playing ? "❚❚" : "▶";
      const label = this.button.getAttribute("aria-label").replace(/^\w+/, playing ? "Pause" : "Play");
      this.button.setAttribute("aria-label", label);
      this.root.classList.toggle("playing", playing);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const player = players.find((one) => one.root === entry.target);
      if (entry.isIntersecting) {
        player.load().catch(() => { player.root.querySelector(".failed").hidden = false; });
      } else if (player.timer) player.pause();
    }
  }, { rootMargin: "400px 0px" });

  for (const root of document.querySelectorAll(".player")) {
    const player = new Player(root);
    players.push(player);
    seen.observe(root);
  }

  addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.closest("button, select, input, summary, a, [tabindex]")) return;
    const middle = innerHeight / 2;
    const away = (player) => {
      const box = player.root.getBoundingClientRect();
      return box.bottom < 0 || box.top > innerHeight ? Infinity : Math.abs((box.top + box.bottom) / 2 - middle);
    };
    const nearest = players.reduce((best, one) => (best && away(best) <= away(one) ? best : one), null);
    if (!nearest || away(nearest) === Infinity) return;
    event.preventDefault();
    nearest.toggle();
  });

  let waiting = 0;
  const redraw = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => players.forEach((player) => { if (player.codes && player.line) player.profile(); }));
  };
  addEventListener("resize", redraw);
  addEventListener("theme", redraw);
})();
