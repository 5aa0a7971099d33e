const form = document.querySelector(".filter");
function apply() {
  const family = form.elements.family.value;
  const outcomes = new Set(Array.from(form.querySelectorAll("[name=outcome]:checked"), box => box.value));
  let shown = 0;
  for (const section of document.querySelectorAll(".family")) {
    let here = 0;
    for (const card of section.querySelectorAll(".card")) {
      card.hidden = (family && section.dataset.family !== family) || !outcomes.has(card.dataset.outcome);
      here += card.hidden ? 0 : 1;
    }
    section.hidden = here === 0;
    shown += here;
  }
  form.querySelector("output").textContent = `${shown} ${shown === 1 ? "unit" : "units"} shown`;
}
form.hidden = false;
form.addEventListener("change", apply);
form.addEventListener("submit", event => event.preventDefault());
apply();
