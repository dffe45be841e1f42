// The machines and what they show; what has happened.

import { html } from '/web/vendor/preact.js';
import { Detail, Icon, Ltr, Tag, useDesk, valueText } from '/web/parts.js';
import { apart } from '/web/texts.js';

/** `title` gives the name under which people know a batch. */
export function Plant({ units, devices, tags, scan, overruns, title }) {
  const desk = useDesk();
  const { t } = desk;
  return html`<section class="card plant" aria-labelledby="plant-title">
    <h2 id="plant-title">${t.units}</h2>
    ${Object.entries(units).map(([name, unit]) => {
      const up = unit.devices.every((device) => devices[device]?.up);
      return html`<details key=${name} class="machine" data-unit=${name} data-up=${up ? 'yes' : 'no'} open=${!up}>
        <summary>
          <span class="plug"><${Icon} name=${up ? 'plug' : 'cross'} /></span>
          <${Ltr} class="machine-name">${name}<//>
          <span class="about">${up ? t.up : t.down} · ${unit.owner ? t.usedBy(title(unit.owner)) : t.free}</span>
        </summary>
        ${unit.devices.map((device) => html`<${Reason} key=${device} name=${device} device=${devices[device]} />`)}
        <dl class="tags">
          ${Object.entries(tags)
            .filter(([tag]) => unit.devices.some((device) => tag.startsWith(`${device}.`)))
            .map(([tag, entry]) => html`<${Tag} key=${tag} name=${tag} tag=${entry} />`)}
        </dl>
      </details>`;
    })}
    <p class="about foot">
      ${t.scan} <${Ltr}>${desk.number(scan * 1000)} ms<//> · ${t.overruns} <${Ltr}>${desk.number(overruns)}<//>
    </p>
  </section>`;
}

function Reason({ name, device }) {
  const desk = useDesk();
  if (!device || device.up) return null;
  return html`<div class="reason" data-device=${name}>
    <p><${Ltr}><strong>${name}</strong><//>${desk.t.colon}<bdi>${desk.say(device.say)}</bdi></p>
    <${Detail} text=${device.reason} />
    <${Detail} text=${device.hint} />
  </div>`;
}

export function Events({ log, recipes }) {
  const { t } = useDesk();
  const entries = Object.entries(log).sort(([a], [b]) => b - a);
  return html`<details class="card events">
    <summary><h2>${t.events}</h2></summary>
    <ol>
      ${entries.map(([number, entry]) => html`<${Entry} key=${number} entry=${entry} recipes=${recipes} />`)}
    </ol>
  </details>`;
}

function Entry({ entry, recipes }) {
  const desk = useDesk();
  const { t } = desk;
  const kind = entry.type === 'device' ? (entry.up ? 'device-up' : 'device-down') : entry.type;
  const words = Object.fromEntries(Object.entries(entry).map(([name, value]) => [name, apart(value)]));
  if (entry.type === 'batch-started') words.recipe = apart(desk.say(recipes[entry.recipe]?.title) || entry.recipe);
  if ('value' in entry) words.value = apart(desk.say(entry.label) || valueText(desk, entry.value));
  if ('how' in entry) words.how = t.how[entry.how];
  if (entry.type === 'mode') words.mode = t.modes[entry.mode];
  const arrow = desk.dir === 'rtl' ? '←' : '→';
  const text =
    entry.type === 'state'
      ? `${t.states[entry.before]} ${arrow} ${t.states[entry.state]}${t.colon}${apart(desk.say(entry.cause_say))}`
      : `${t.log[kind]?.(words) ?? kind}${entry.say ? `${t.colon}${apart(desk.say(entry.say))}` : ''}`;
  return html`<li><${Ltr} class="time">${desk.clock(entry.time)}<//> ${text}</li>`;
}
