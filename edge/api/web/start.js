// Starting a batch: a recipe, its parameters, checked here first and by edge again.

import { html, useState } from '/web/vendor/preact.js';
import { Fault, Icon, useDesk } from '/web/parts.js';
import { checkNumber, ChoiceField, NumberField, Switch, TextField } from '/web/fields.js';
import { apart } from '/web/texts.js';

/** Takes in the recipe files that have changed, and says what came of it, whoever asked. */
function Reload({ reloaded }) {
  const desk = useDesk();
  const { t } = desk;
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const reload = async () => {
    setBusy(true);
    const answer = await desk.give('/api/recipes/reload', {});
    setBusy(false);
    setError(answer.error);
  };
  return html`<div class="reload">
    <button type="button" onClick=${reload} disabled=${busy || !desk.current} aria-busy=${busy}>
      ${busy ? t.sending : t.reload}
    </button>
    <${Fault} error=${error} />
    ${reloaded.report && html`<pre dir="ltr" class="report">${reloaded.report}</pre>`}
  </div>`;
}

export function Start({ recipes, reloaded, units, devices, title }) {
  const desk = useDesk();
  const { t } = desk;
  const [open, setOpen] = useState('');
  return html`<section class="card" aria-labelledby="start-title">
    <h2 id="start-title">${t.startTitle}</h2>
    <div class="recipes">
      ${Object.entries(recipes).map(
        ([name, recipe]) => html`<div key=${name} class="recipe" data-recipe=${name}>
          <button type="button" aria-expanded=${open === name} onClick=${() => setOpen(open === name ? '' : name)}>
            <${Icon} name="play" /> <bdi>${desk.say(recipe.title) || name}</bdi>
          </button>
          ${open === name &&
          html`<${Form} name=${name} recipe=${recipe} inTheWay=${inTheWay(desk, recipe, units, devices, title)}
            onDone=${() => setOpen('')} />`}
        </div>`,
      )}
    </div>
    <${Reload} reloaded=${reloaded} />
  </section>`;
}

/** Why the recipe cannot start now, as far as the page can see. */
function inTheWay(desk, recipe, units, devices, title) {
  const { t } = desk;
  const reasons = (recipe.missing ?? []).map((say) => t.missingFirst(desk.say(say)));
  for (const unit of recipe.uses) {
    if (units[unit]?.owner) reasons.push(t.unitUsed(apart(unit), title(units[unit].owner)));
    for (const device of units[unit]?.devices ?? []) {
      if (!devices[device]?.up) reasons.push(t.deviceDown(apart(device)));
    }
  }
  return reasons;
}

const text = (desk, value) => (value === null ? '' : typeof value === 'number' ? desk.exact(value) : value);

function Form({ name, recipe, inTheWay, onDone }) {
  const desk = useDesk();
  const { t } = desk;
  const [typed, setTyped] = useState(() =>
    Object.fromEntries(
      recipe.parameters.map((one) => [one.name, one.type === 'bool' ? one.default === true : text(desk, one.default)]),
    ),
  );
  const [faults, setFaults] = useState({});
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);

  const check = (one, entry = typed[one.name]) => {
    if (one.type === 'bool') return [entry, ''];
    if (one.type === 'number') return checkNumber(desk, one, entry);
    return [entry.trim(), entry.trim() ? '' : t.needed];
  };
  const judge = (one, entry) => setFaults((before) => ({ ...before, [one.name]: check(one, entry)[1] }));
  const submit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const checked = recipe.parameters.map((one) => [one.name, ...check(one)]);
    const wrong = Object.fromEntries(checked.map(([key, , fault]) => [key, fault]));
    setFaults(wrong);
    const first = checked.find(([, , fault]) => fault);
    if (first) {
      form.elements[first[0]]?.focus();
      return;
    }
    setBusy(true);
    const parameters = Object.fromEntries(checked.map(([key, value]) => [key, value]));
    const answer = await desk.give('/api/batches', { recipe: name, parameters });
    setBusy(false);
    setError(answer.error);
    setFaults(answer.fields ?? {});
    if (answer.error === '') onDone();
  };

  return html`<form onSubmit=${submit} noValidate aria-label=${desk.say(recipe.title) || name}>
    ${recipe.parameters.map((one) => {
      const common = {
        key: one.name,
        name: one.name,
        label: desk.say(one.say) || one.name,
        text: typed[one.name],
        fault: faults[one.name],
        onText: (value) => {
          setTyped((before) => ({ ...before, [one.name]: value }));
          if (faults[one.name]) judge(one, value);
        },
        onLeave: () => judge(one),
      };
      if (one.type === 'bool') return html`<${Switch} ...${common} on=${typed[one.name]} onSwitch=${common.onText} />`;
      if (one.type === 'number')
        return html`<${NumberField} ...${common} unit=${one.unit} low=${one.low} high=${one.high} />`;
      return one.choices.length
        ? html`<${ChoiceField} ...${common} choices=${one.choices} />`
        : html`<${TextField} ...${common} />`;
    })}
    ${inTheWay.map((reason) => html`<p class="note" key=${reason}>${reason}</p>`)}
    <${Fault} error=${error} />
    <div class="buttons">
      <button type="button" onClick=${onDone}>${t.close}</button>
      <button type="submit" class="primary" disabled=${busy || inTheWay.length > 0 || !desk.current} aria-busy=${busy}>
        <${Icon} name="play" /> ${busy ? t.sending : t.start}
      </button>
    </div>
  </form>`;
}
