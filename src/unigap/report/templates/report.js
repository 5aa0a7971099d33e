// The gallery. What the data says is only ever set as text, never as markup.
"use strict";
const source = document.getElementById("gallery-data");
if (source) gallery(JSON.parse(source.textContent));

function gallery(data) {
  const PAGE = 24;
  const WORDS = {r: "right", w: "wrong", x: "refused", u: "unscored", m: "missing"};
  const MARKS = {r: "✓", w: "✗", x: "⊘", u: "?", m: "…"};
  const EMPTY = {question: 0, sample: 0, status: "m", seed: "", picture: 0, crisp: 0, file: "", text: "", thought: "",
                 why: "", reading: "", error: "", refined: "", detail: ""};
  const form = document.querySelector(".filter");
  const fields = form.elements;
  const cards = document.getElementById("cards");
  const more = document.querySelector(".more");
  const viewer = document.getElementById("viewer");
  const questions = data.questions.map(([direction, arm], index) => (
    {index, arm, text: direction === "understanding", name: `${direction === "understanding" ? "text" : "drawing"}, ${arm}`}
  ));
  const pairs = questions.filter(question => question.text).map(text => (
    [text, questions.find(question => !question.text && question.arm === text.arm)]
  )).filter(([, drawing]) => drawing);
  const units = data.units.map(unit => ({...unit, items: unit.items.map(item => (
    {...item, answers: item.answers.map(values => (
      Object.assign({}, EMPTY, Object.fromEntries(values.map((value, place) => [data.fields[place], value])))
    ))}
  ))}));
  let found = units;
  let shown = 0;
  let looked = [];  // the answers on the page, in order: what the viewer steps through
  let current = 0;

  // ---- building elements ----

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter(child => child !== null && child !== ""));
    return made;
  }

  function chip(status, words) {
    return element("span", {class: `chip ${WORDS[status]}`}, element("span", {"aria-hidden": "true"}, MARKS[status]), ` ${words}`);
  }

  function verdict(answer) {
    return chip(answer.status, answer.status === "w" && answer.error ? answer.error.replaceAll("_", " ") : WORDS[answer.status]);
  }

  function picture(answer, size) {
    if (!answer.picture) return element("span", {class: "nothing"}, "no picture");
    const alt = `drawing, ${questions[answer.question].arm}: ${answer.reading || answer.why || "no reading"}`;
    const image = element("img", {src: data.pictures[answer.picture], alt, width: size, height: size});
    if (answer.crisp) image.className = "pixelated";
    return image;
  }

  function name(answer, item) {
    const several = item.answers.some(other => other.sample > 0);
    return questions[answer.question].name + (several ? `, sample ${answer.sample + 1}` : "");
  }

  function opener(unit, item, answer, attributes, ...children) {
    const place = looked.push({unit, item, answer}) - 1;
    const button = element("button", {type: "button", ...attributes}, ...children);
    button.addEventListener("click", () => open(place));
    return button;
  }

  function why(text) {
    return text ? element("span", {class: "why"}, text) : null;
  }

  function textAnswer(unit, item, answer) {
    return element("li", {},
      opener(unit, item, answer, {class: "arm u"}, name(answer, item)), " ",
      answer.text ? element("q", {}, answer.text) : null, " ", verdict(answer), " ", why(answer.why), " ", why(answer.detail));
  }

  function drawing(unit, item, answer) {
    const label = name(answer, item).replace("drawing, ", "");
    return element("figure", {},
      opener(unit, item, answer, {class: "picture", "aria-label": `enlarge the drawing, ${label}`}, picture(answer, 144)),
      element("figcaption", {}, element("span", {class: "arm g"}, label), verdict(answer), why(answer.why || answer.reading), why(answer.detail)));
  }

  function thought(answer, title) {
    const details = element("details", {class: "thought"}, element("summary", {}, title), element("p", {class: "pre"}, answer.thought));
    details.open = answer.thought.length < 300;
    return details;
  }

  function shownWith(pictures, what) {
    return pictures.map(picture => typeof picture === "number" ?
      element("img", {class: "pixelated", src: data.pictures[picture], alt: `picture shown with the ${what}`, width: 72, height: 72}) :
      element("span", {class: "why"}, `with picture ${picture}`));
  }

  function asked(item) {
    return element("dl", {class: "asked"},
      element("dt", {class: "g"}, "prompt"),
      element("dd", {class: "pre"}, item.prompt, ...shownWith(item.prompt_pictures, "prompt")),
      element("dt", {class: "u"}, item.derived ? "question (derived by rule)" : "question"),
      element("dd", {class: "pre"}, item.question, ...shownWith(item.question_pictures, "question")),
      element("dt", {}, "truth"), element("dd", {class: "pre"}, item.caption));
  }

  function card(unit) {
    const items = unit.items.map(item => {
      const texts = item.answers.filter(answer => questions[answer.question].text);
      const drawings = item.answers.filter(answer => !questions[answer.question].text);
      const thoughts = item.answers.filter(answer => answer.thought);
      return element("div", {class: "item"}, asked(item), element("div", {class: "answers"},
        element("ul", {class: "texts"}, ...texts.map(answer => textAnswer(unit, item, answer))),
        element("div", {class: "drawings"}, ...drawings.map(answer => drawing(unit, item, answer))),
        element("div", {class: "thoughts"}, ...thoughts.map(answer => thought(answer, `thought before the ${questions[answer.question].text ? "text" : "drawing"}`)))));
    });
    const about = [data.families[unit.family], unit.variant].filter(Boolean).join(", ");
    return element("article", {class: "card"}, element("h3", {}, unit.unit, " ", element("small", {}, about)), ...items);
  }

  // ---- one answer, enlarged ----

  function open(place) {
    current = place;
    const {unit, item, answer} = looked[place];
    const question = questions[answer.question];
    const facts = [
      [question.text ? "question" : "prompt", question.text ? item.question : item.prompt],
      [question.arm === "refined" ? "drawn from" : "", answer.refined],
      [question.arm === "oracle" ? "drawn from" : "", item.caption],
      ["thought", answer.thought],
      ["answer", answer.text],
      ["truth", item.caption],
      ["judge read", answer.reading],
      ["reason", answer.why],
      ["model said", answer.detail],
      ["item", item.id],
      ["sample, seed", `${answer.sample}, ${answer.seed}`],
      ["file", answer.file],
    ];
    const list = element("dl", {}, ...facts.filter(([name, value]) => name && value).flatMap(([name, value]) => (
      [element("dt", {}, name), element("dd", {class: "pre"}, value)]
    )));
    document.getElementById("viewer-title").replaceChildren(`${unit.unit}: ${name(answer, item)} `, verdict(answer));
    viewer.querySelector(".viewer-body").replaceChildren(...(question.text ? [list] : [picture(answer, 480), list]));
    viewer.querySelector(".previous").disabled = place === 0;
    viewer.querySelector(".next").disabled = place === looked.length - 1;
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const place = current + by;
    if (place >= 0 && place < looked.length) open(place);
  }

  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  viewer.querySelector(".previous").addEventListener("click", () => step(-1));
  viewer.querySelector(".next").addEventListener("click", () => step(1));
  viewer.addEventListener("click", event => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  // ---- filters ----

  function fill(select, options) {
    for (const [value, words] of options) select.append(element("option", {value}, words));
  }

  function count(values) {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  function disagrees(unit, pair, question) {
    return pairs.some(([text, drawing]) => {
      if (question && text.arm !== question.arm) return false;
      const drawn = unit.status[drawing.index];
      return [...unit.status[text.index]].some((status, sample) => same(status, pair[0]) && same(drawn[sample], pair[1]));
    });
  }

  function same(status, wanted) {
    return status === wanted || (wanted === "w" && status === "x");  // a refusal is wrong
  }

  function matches(unit, wanted) {
    if (wanted.family !== "" && unit.family !== Number(wanted.family)) return false;
    if (wanted.pair && !disagrees(unit, wanted.pair, wanted.question)) return false;
    const among = wanted.question ? [wanted.question] : questions;
    const answered = among.some(({index}) => (
      (wanted.status ? unit.status[index].includes(wanted.status) : unit.status[index] !== "") &&
      (!wanted.error || unit.items.some(item => item.answers.some(answer => answer.question === index && answer.error === wanted.error)))
    ));
    return answered && (!wanted.words || haystack(unit).includes(wanted.words));
  }

  function haystack(unit) {
    unit.words ??= [unit.unit, unit.variant, ...unit.items.flatMap(item => [
      item.id, item.prompt, item.question, item.caption, ...item.answers.flatMap(answer => [answer.text, answer.thought, answer.why, answer.reading]),
    ])].join("\n").toLowerCase();
    return unit.words;
  }

  function apply() {
    const question = fields.question.value === "" ? null : questions[Number(fields.question.value)];
    fields.pair.disabled = question !== null && !pairs.some(([text]) => text.arm === question.arm);
    const wanted = {
      family: fields.family.value, question, status: fields.status.value, error: fields.error.value,
      pair: fields.pair.disabled ? "" : fields.pair.value, words: fields.words.value.trim().toLowerCase(),
    };
    found = units.filter(unit => matches(unit, wanted));
    shown = 0;
    looked = [];
    cards.replaceChildren();
    showMore();
  }

  function showMore() {
    const next = found.slice(shown, shown + PAGE);
    cards.append(...next.map(card));
    shown += next.length;
    const left = found.length - shown;
    more.hidden = left === 0;
    more.firstElementChild.textContent = `Show ${Math.min(PAGE, left)} more`;
    form.querySelector("output").textContent = found.length === 0 ? "no units match" :
      `${shown.toLocaleString("en")} of ${found.length.toLocaleString("en")} ${found.length === 1 ? "unit" : "units"} shown`;
  }

  const answers = units.flatMap(unit => unit.items.flatMap(item => item.answers));
  fill(fields.family, data.families.map((family, index) => [index, family]));
  fill(fields.question, questions.map(({index, name}) => [index, name]));
  fill(fields.status, count(units.flatMap(unit => unit.status.flatMap(letters => [...letters]))).map(([status]) => [status, WORDS[status]]));
  fill(fields.error, count(answers.map(answer => answer.error).filter(Boolean)).map(([error, times]) => [error, `${error.replaceAll("_", " ")} (${times})`]));
  for (const select of [fields.error, fields.pair]) if (select.options.length === 1 || (select === fields.pair && !pairs.length)) select.parentElement.hidden = true;
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", event => event.preventDefault());
  more.firstElementChild.addEventListener("click", showMore);
  apply();
}
