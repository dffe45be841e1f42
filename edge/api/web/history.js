// The batches that the record keeps, and the record of one.

import { html, useEffect, useRef, useState } from '/web/vendor/preact.js';
import { TextField } from '/web/fields.js';
import { Detail, Ltr, Quantity, StateMark, Time, useDesk } from '/web/parts.js';
import { get } from '/web/stream.js';

const SHOWN = 12;

/** `news` changes whenever a batch starts, ends or goes: then the list is read again. */
export function History({ recipes, news }) {
  const desk = useDesk();
  const { t } = desk;
  const [batches, setBatches] = useState([]);
  const [open, setOpen] = useState(null);
  const [number, setNumber] = useState('');
  useEffect(() => {
    let wanted = true;
    const read = async () => {
      const of = encodeURIComponent(number.trim());
      const asked = of ? [`&lot=${of}`, `&order=${of}`] : [''];
      const found = await Promise.all(asked.map((query) => get(`/api/batches?limit=${SHOWN}${query}`)));
      if (wanted && found.every(Boolean)) setBatches(alone(found.flat()).filter((one) => one.ended));
    };
    read();
    const later = setTimeout(read, 1500); // the recorder may be a moment behind the loop
    return () => {
      wanted = false;
      clearTimeout(later);
    };
  }, [news, number]);
  const title = (name) => desk.say(recipes[name]?.title) || name;

  return html`<section class="card" aria-labelledby="history-title">
    <h2 id="history-title">${t.history}</h2>
    <${TextField} name="number" label=${t.find} text=${number} onText=${setNumber} />
    ${batches.length === 0 && html`<p class="about">${t.noHistory}</p>`}
    <ul class="history">
      ${batches.map(
        (one) => html`<li key=${one.id}>
          <button type="button" data-batch=${one.id} onClick=${() => setOpen(one.id)}>
            <span><bdi>${title(one.recipe)}</bdi><span class="about"><${Ltr}>${one.id}<//> · <bdi>${one.by}</bdi>${numbers(t, one)}</span></span>
            <span><${StateMark} state=${one.state} />
              ${one.ended && html`<span class="about"><${Time} seconds=${seconds(one)} /></span>`}</span>
          </button>
        </li>`,
      )}
    </ul>
    ${open && html`<${Details} id=${open} title=${title} onClose=${() => setOpen(null)} />`}
  </section>`;
}

/** Every batch once: a lot and an order may have the same number. */
const alone = (batches) => [...new Map(batches.map((one) => [one.id, one])).values()];

const numbers = (t, { lot, order }) =>
  [[t.lot, lot], [t.order, order]].filter(([, one]) => one).map(([name, one]) => html` · ${name} <bdi>${one}</bdi>`);

const seconds = ({ started, ended }) => (new Date(ended) - new Date(started)) / 1000;

function Details({ id, title, onClose }) {
  const desk = useDesk();
  const { t } = desk;
  const dialog = useRef(null);
  const [found, setFound] = useState(null);
  useEffect(() => {
    dialog.current.showModal();
    get(`/api/batches/${id}`).then((batch) => (batch ? setFound(batch) : onClose()));
  }, [id]);
  return html`<dialog ref=${dialog} class="details" onClose=${onClose} aria-labelledby="details-title">
    <header>
      <h2 id="details-title"><bdi>${found ? title(found.recipe) : ''}</bdi> <${Ltr} class="about">${id}<//></h2>
      <button type="button" onClick=${onClose}>${t.close}</button>
    </header>
    ${found && html`<${Record} batch=${found} />`}
  </dialog>`;
}

function Record({ batch }) {
  const desk = useDesk();
  const { t } = desk;
  return html`<p><${StateMark} state=${batch.state} /></p>
    <p class="about">
      ${t.started} <bdi>${desk.day(batch.started)}</bdi> · ${t.by} <bdi>${batch.by}</bdi>${numbers(t, batch)}
      ${batch.ended && html` · ${t.duration} <${Time} seconds=${seconds(batch)} />`}
    </p>
    <${Rows} title=${t.parameters} rows=${batch.parameters} row=${(one) => [one.name, html`<${Quantity} value=${one.value} unit=${one.unit} />`]} />
    <${Rows} title=${t.recorded} rows=${batch.values}
      row=${(one) => [one.name, html`<${Quantity} value=${one.value} unit=${one.unit} />`, clock(desk, one.time)]} />
    <${Rows} title=${t.questions} rows=${batch.questions}
      row=${(one) => [desk.say(one.say), answerOf(desk, one), one.role === 'engineer' ? `${one.by} (${t.engineer})` : one.by ?? '']} />
    <${Rows} title=${t.alarms} rows=${batch.alarms} 
      row=${(one) => [html`${desk.say(one.say)}<${Detail} text=${one.detail} />`, t.kinds[one.kind] ?? one.kind, clock(desk, one.raised)]} />
    <${Rows} title=${t.state} rows=${batch.states} row=${(one) => [t.states[one.state], desk.say(one.cause_say) || one.cause, clock(desk, one.time)]} />
    <${Rows} title=${t.steps} rows=${batch.steps}
      row=${(one) => [one.name, t.how[one.how] ?? '', one.active_s === null ? '' : html`<${Time} seconds=${one.active_s} />`]} />`;
}

/** The text of the answer that was chosen, where it has one; else what was given. */
const answerOf = (desk, { value, unit, label }) => {
  if (value === null) return '—';
  return desk.say(label) || html`<${Quantity} value=${value} unit=${unit} />`;
};

const clock = (desk, time) => html`<${Ltr}>${desk.clock(time)}<//>`;

function Rows({ title, rows, row }) {
  if (!rows?.length) return null;
  return html`<h3>${title}</h3>
    <table>
      <tbody>
        ${rows.map((one) => html`<tr>${row(one).map((cell) => html`<td><bdi>${cell}</bdi></td>`)}</tr>`)}
      </tbody>
    </table>`;
}
