// The list of alarms, the most urgent first (ISA-18.2): acknowledged, shelved for some time, or brought back.

import { html, useState } from '/web/vendor/preact.js';
import { Detail, Fault, Icon, Ltr, useDesk } from '/web/parts.js';
import { NumberField, TextField } from '/web/fields.js';
import { apart, parseNumber } from '/web/texts.js';

const PRIORITIES = ['critical', 'high', 'medium', 'low'];

/** What nobody has seen comes first, then the urgent, then the new. */
function sorted(alarms) {
  const rank = ([number, one]) => [
    one.acknowledged ? 1 : 0, one.active ? 0 : 1, PRIORITIES.indexOf(one.priority), -number,
  ];
  const compare = (a, b) => a.map((value, place) => value - b[place]).find((difference) => difference !== 0) ?? 0;
  return Object.entries(alarms).sort((one, two) => compare(rank(one), rank(two)));
}

export function Alarms({ alarms }) {
  const { t } = useDesk();
  const all = sorted(alarms);
  const shown = all.filter(([, one]) => !one.shelved);
  const shelved = all.filter(([, one]) => one.shelved);
  const row = ([number, alarm]) => html`<${Alarm} key=${number} number=${number} alarm=${alarm} />`;
  return html`<section class="alarms" aria-labelledby="alarms-title">
    <h2 id="alarms-title" class=${shown.length ? '' : 'unseen'}>${t.alarms}</h2>
    ${shown.length === 0 && html`<p class="quiet"><${Icon} name="check" /> ${t.noAlarms}</p>`}
    <ul>${shown.map(row)}</ul>
    ${shelved.length > 0 && html`<details class="shelf">
      <summary>${t.shelvedAlarms} (${shelved.length})</summary>
      <ul>${shelved.map(row)}</ul>
    </details>`}
  </section>`;
}

function Alarm({ number, alarm }) {
  const desk = useDesk();
  const { t } = desk;
  const [error, setError] = useState('');
  const [shelving, setShelving] = useState(false);
  const give = async (command, body) => {
    const answer = await desk.give(`/api/alarms/${number}/${command}`, body);
    setError(answer.error);
    if (answer.error === '') setShelving(false);
  };
  const button = (command, onClick) =>
    html`<button type="button" data-command=${command} disabled=${!desk.current} onClick=${onClick}>${t[command]}</button>`;
  const { shelved } = alarm;
  return html`<li
    data-alarm=${number}
    data-active=${alarm.active ? 'yes' : 'no'}
    data-acknowledged=${alarm.acknowledged ? 'yes' : 'no'}
    data-priority=${alarm.priority}
    data-shelved=${shelved ? 'yes' : 'no'}
  >
    <${Icon} name="bell" />
    <div>
      <p class="alarm-text"><bdi>${desk.say(alarm.say)}</bdi></p>
      <${Detail} text=${alarm.detail} />
      <p class="about">
        <strong>${t.priorities[alarm.priority]}</strong> · ${t.kinds[alarm.kind] ?? alarm.kind} ·
        ${' '}${alarm.active ? t.active : t.gone}${alarm.acknowledged && html` · ${t.acknowledged}`} ·
        ${' '}<${Ltr}>${desk.clock(alarm.time)}<//>${alarm.batch && html` · <${Ltr}>${alarm.batch}<//>`}
      </p>
      ${shelved && html`<p class="about">${t.shelvedBy(apart(shelved.by), apart(desk.clock(shelved.until)), apart(shelved.why))}</p>`}
      ${shelving && html`<${Shelve} onShelve=${(body) => give('shelve', body)} onBack=${() => setShelving(false)} />`}
      <${Fault} error=${error} />
    </div>
    ${!shelving && html`<div class="alarm-buttons">
      ${!alarm.acknowledged && !shelved && button('acknowledge', () => give('acknowledge', {}))}
      ${shelved ? button('unshelve', () => give('unshelve', {})) : button('shelve', () => setShelving(true))}
    </div>`}
  </li>`;
}

/** For how long, and why: both are asked for, and go into the record. */
function Shelve({ onShelve, onBack }) {
  const { t } = useDesk();
  const [minutes, setMinutes] = useState('30');
  const [why, setWhy] = useState('');
  const [faults, setFaults] = useState({});
  const submit = (event) => {
    event.preventDefault();
    const value = parseNumber(minutes);
    const wrong = { minutes: value > 0 && value <= 720 ? '' : t.shelfLimit, why: why.trim() ? '' : t.needed };
    setFaults(wrong);
    if (!wrong.minutes && !wrong.why) onShelve({ minutes: value, why: why.trim() });
  };
  return html`<form class="shelve" onSubmit=${submit} noValidate>
    <${NumberField} name="minutes" label=${t.shelveFor} unit="min" low=${null} high=${null} text=${minutes}
      fault=${faults.minutes} onText=${setMinutes} />
    <${TextField} name="why" label=${t.shelveWhy} text=${why} fault=${faults.why} onText=${setWhy} />
    <div class="buttons">
      <button type="button" onClick=${onBack}>${t.back}</button>
      <button type="submit" class="primary">${t.shelve}</button>
    </div>
  </form>`;
}
