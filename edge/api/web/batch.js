// One batch that the loop knows: its state, steps, questions, values, and the commands that its state allows.

import { html, useState } from '/web/vendor/preact.js';
import { Confirm, Fault, Icon, Ltr, Quantity, StateMark, Tag, Time, useDesk } from '/web/parts.js';
import { checkNumber, NumberField, Switch, TextField } from '/web/fields.js';
import { Modes } from '/web/modes.js';

const COMMANDS = ['hold', 'restart', 'pause', 'resume', 'stop', 'abort', 'reset'];
const ASKED_FIRST = { stop: ['stopTitle', 'stopText'], abort: ['abortTitle', 'abortText'] };
const CONTAINERS = new Set(['parallel', 'first', 'choose', 'repeat', 'include']);

export function Batch({ id, batch, recipe, tags }) {
  const desk = useDesk();
  const { t } = desk;
  const [error, setError] = useState('');
  const [busy, setBusy] = useState('');
  const [confirming, setConfirming] = useState('');

  const command = async (name) => {
    setConfirming('');
    setBusy(name);
    const answer = await desk.give(`/api/batches/${id}/${name}`, {});
    setBusy('');
    setError(answer.error);
  };
  const pressed = (name) => (name in ASKED_FIRST ? setConfirming(name) : command(name));

  return html`<article class="card batch" data-batch=${id} data-state=${batch.state} aria-labelledby=${`title-${id}`}>
    <header>
      <div>
        <h3 id=${`title-${id}`}><bdi>${desk.say(recipe?.title) || batch.recipe}</bdi></h3>
        <p class="about">
          <${Ltr}>${id}<//> · ${t.by} <bdi>${batch.by}</bdi>
          ${batch.started && html` · ${t.started} <${Ltr}>${desk.clock(batch.started)}<//>`}
        </p>
      </div>
      <div class="now">
        <${StateMark} state=${batch.state} large />
        <p class="about">
          ${batch.since && html`${t.since} <${Ltr}>${desk.clock(batch.since)}<//>`}
          <${Cause} batch=${batch} />
        </p>
      </div>
    </header>
    ${batch.questions.map((one) => html`<${Question} key=${one.prompt} batch=${id} question=${one} />`)}
    <${Way} batch=${batch} recipe=${recipe} />
    <${Steps} steps=${batch.steps} />
    <div class="buttons commands" role="group" aria-label=${desk.say(recipe?.title) || batch.recipe}>
      ${COMMANDS.map(
        (name) => html`<button
          key=${name}
          type="button"
          class=${name in ASKED_FIRST ? 'danger' : ''}
          data-command=${name}
          disabled=${!batch.commands.includes(name) || busy !== '' || !desk.current}
          aria-busy=${busy === name}
          onClick=${() => pressed(name)}
        >
          <${Icon} name=${name} /> ${t.commands[name]}
        </button>`,
      )}
    </div>
    <${Fault} error=${error} />
    <${Modes} id=${id} batch=${batch} recipe=${recipe} />
    <div class="facts">
      <${Facts} title=${t.parameters} facts=${parameterFacts(desk, batch, recipe)} />
      <${Facts} title=${t.recorded} facts=${batch.recorded.map((one) => [one.name, one.value, one.unit])} />
    </div>
    <details class="values" open>
      <summary>${t.values}</summary>
      <dl class="tags">
        ${(recipe?.tags ?? []).map((name) => tags[name] && html`<${Tag} key=${name} name=${name} tag=${tags[name]} />`)}
      </dl>
    </details>
    ${confirming &&
    html`<${Confirm}
      title=${t[ASKED_FIRST[confirming][0]](id)}
      text=${t[ASKED_FIRST[confirming][1]]}
      yes=${t.commands[confirming]}
      command=${confirming}
      onYes=${() => command(confirming)}
      onNo=${() => setConfirming('')}
    />`}
  </article>`;
}

const NOT_PEOPLE = new Set(['', 'interlock', 'device', 'recipe', 'edge']);

/** Why the batch is in its state: who wanted it, or what happened. */
function Cause({ batch }) {
  const desk = useDesk();
  if (batch.state === 'complete') return null;
  if (!NOT_PEOPLE.has(batch.changed_by)) return html` · ${desk.t.by} <bdi>${batch.changed_by}</bdi>`;
  const text = desk.say(batch.cause_say);
  return text && html` · <bdi class="cause">${text}</bdi>`;
}

function parameterFacts(desk, batch, recipe) {
  const known = Object.fromEntries((recipe?.parameters ?? []).map((one) => [one.name, one]));
  const given = Object.entries({ ...batch.parameters, ...batch.answers }).map(([name, value]) => [
    desk.say(known[name]?.say) || name,
    value,
    known[name]?.unit ?? '',
  ]);
  return [...given, ...Object.entries(batch.variables).map(([name, { value, unit }]) => [name, value, unit])];
}

function Facts({ title, facts }) {
  if (!facts.length) return null;
  return html`<section>
    <h4>${title}</h4>
    <dl>
      ${facts.map(
        ([name, value, unit]) => html`<div><dt><bdi>${name}</bdi></dt>
          <dd><${Quantity} value=${value} unit=${unit} /></dd></div>`,
      )}
    </dl>
  </section>`;
}

/** Where the batch stands among the recipe's own steps. */
function Way({ batch, recipe }) {
  const { t } = useDesk();
  const steps = recipe?.steps ?? [];
  const active = new Set(batch.steps.filter((one) => !one.handler).map((one) => one.step));
  const at = batch.state === 'complete' ? steps.length : steps.findIndex((one) => active.has(one.step));
  if (at < 0) return null;
  const named = at < steps.length && !batch.steps.some((one) => one.step === steps[at].step && !CONTAINERS.has(one.kind));
  return html`<div class="way">
    <div class="way-track" aria-hidden="true">
      ${steps.map((one, place) => html`<i class=${place < at ? 'done' : place === at ? 'here' : ''}></i>`)}
    </div>
    <p class="about">
      ${t.step} <${Ltr}>${Math.min(at + 1, steps.length)} / ${steps.length}<//>
      ${named && html` · <bdi>${steps[at].name}</bdi>`}
    </p>
  </div>`;
}

/** The steps that are active now, each in its branch, with its time and its limit. */
function Steps({ steps }) {
  const { t } = useDesk();
  const leaves = steps.filter((one) => !CONTAINERS.has(one.kind));
  return html`<ul class="steps">
    ${leaves.map(
      (one) => html`<li key=${`${one.branch}:${one.step}`} data-step=${one.name}>
        <span class="step-name">
          ${one.branch && html`<${Ltr} class="branch">${one.branch}<//> `}<bdi>${one.name}</bdi>
          ${one.waits_for?.length > 0 && html` <span class="about">${t.waitsFor(one.waits_for.join(', '))}</span>`}
          ${one.condition && one.kind !== 'ask' && html`<span class="condition"><${Ltr}>${one.condition}<//></span>`}
        </span>
        <span class="step-time">
          <${Time} seconds=${one.seconds} />
          ${one.limit !== null && html` <span class="limit">${t.of} <${Time} seconds=${one.limit} /></span>`}
        </span>
        ${one.limit !== null &&
        html`<progress max=${one.limit} value=${Math.min(one.seconds, one.limit)} aria-hidden="true"></progress>`}
      </li>`,
    )}
  </ul>`;
}

/** An open question with the controls that its kind needs. */
function Question({ batch, question }) {
  const desk = useDesk();
  const { t } = desk;
  const [text, setText] = useState('');
  const [fault, setFault] = useState('');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const [engineer, setEngineer] = useState(false);

  const answer = async (value) => {
    setBusy(true);
    const role = engineer ? 'engineer' : 'operator';
    const done = await desk.give(`/api/batches/${batch}/answer`, { prompt: question.prompt, value, role });
    setBusy(false);
    setError(done.error);
  };
  const sent = (event) => {
    event.preventDefault();
    const [value, wrong] = question.kind === 'number' ? checkNumber(desk, question, text) : checkText(desk, text);
    setFault(wrong);
    if (!wrong) answer(value);
  };
  const forEngineer = question.who === 'engineer'; // who is at the page is not known: a person says what they are
  const off = busy || !desk.current || (forEngineer && !engineer);
  const label = desk.say(question.say);
  const words = { yes: t.yes, no: t.no };

  return html`<form class="question" data-prompt=${question.prompt} onSubmit=${sent} noValidate>
    <p class="eyebrow"><${Icon} name="question" /> ${t.answerWanted}</p>
    <p class="asked"><bdi>${label}</bdi></p>
    ${forEngineer &&
    html`<p class="about">${t.engineerOnly}</p>
      <${Switch} name="engineer" label=${t.asEngineer} on=${engineer} onSwitch=${setEngineer} />`}
    ${question.kind === 'confirm' &&
    html`<button type="button" class="primary" disabled=${off} onClick=${() => answer(true)}>
      <${Icon} name="check" /> ${t.confirm}
    </button>`}
    ${question.kind === 'choice' &&
    html`<div class="buttons">
      ${question.answers.map(
        (one) => html`<button key=${one} type="button" class="primary" data-answer=${one} disabled=${off}
          onClick=${() => answer(one)}><bdi>${desk.say(question.labels[one]) || words[one] || one}</bdi></button>`,
      )}
    </div>`}
    ${(question.kind === 'number' || question.kind === 'text') &&
    html`<div class="entry">
      ${question.kind === 'number'
        ? html`<${NumberField} label=${label} hideLabel ...${limits(question)} text=${text} fault=${fault} onText=${setText} />`
        : html`<${TextField} label=${label} hideLabel text=${text} fault=${fault} onText=${setText} />`}
      <button type="submit" class="primary" disabled=${off}>${t.send}</button>
    </div>`}
    <${Fault} error=${error} />
  </form>`;
}

const limits = ({ unit, low, high }) => ({ unit, low, high });
const checkText = (desk, text) => [text.trim(), text.trim() ? '' : desk.t.needed];
