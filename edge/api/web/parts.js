// The small parts that the rest of the page is made of.

import { createContext, html, useContext, useEffect, useRef } from '/web/vendor/preact.js';
import { duration, unitText } from '/web/texts.js';

/** What every part may need: the language's words and numbers (see `speak`), the operator's name, `give` a command. */
export const Desk = createContext(null);
export const useDesk = () => useContext(Desk);

/** Names, numbers and codes read left to right in any language. */
export const Ltr = ({ children, ...rest }) => html`<bdi dir="ltr" ...${rest}>${children}</bdi>`;

const SHAPES = {
  idle: 'M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zm0 3a5 5 0 1 1 0 10 5 5 0 0 1 0-10z',
  play: 'M6 3.5v17l14-8.5z',
  pause: 'M5 4h5v16H5zm9 0h5v16h-5z',
  hand: 'M3 4h18v4H3zm0 6h18v4H3zm0 6h18v4H3z',
  stop: 'M4 4h16v16H4z',
  cross: 'M6 3 3 6l6 6-6 6 3 3 6-6 6 6 3-3-6-6 6-6-3-3-6 6z',
  check: 'M9.5 20 2 12.5 5 9.5l4.500 4.500L19 4.500l3 3z',
  bell: 'M12 2 1 21h22zm-1.200 7h2.400v6h-2.400zm0 7.500h2.400V19h-2.400z',
  question: 'M12 2a7 7 0 0 0-7 7h4a3 3 0 1 1 4.500 2.600C11.600 12.700 10 14 10 16.500h4c0-1 .8-1.600 2-2.400A7 7 0 0 0 12 2zm-2 17h4v4h-4z',
  again: 'M12 4V0l7 6-7 6V8a5 5 0 1 0 5 5h4a9 9 0 1 1-9-9z',
  plug: 'M7 2h3v6h4V2h3v6h2v4a7 7 0 0 1-5.500 6.800V23h-3v-4.200A7 7 0 0 1 5 12V8h2z',
};

const ICONS = {
  idle: 'idle', running: 'play', pausing: 'pause', paused: 'pause', holding: 'hand', held: 'hand', restarting: 'again',
  stopping: 'stop', stopped: 'stop', aborting: 'cross', aborted: 'cross', complete: 'check',
  hold: 'hand', restart: 'again', pause: 'pause', resume: 'play', stop: 'stop', abort: 'cross', reset: 'check',
};

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${SHAPES[ICONS[name] ?? name]} /></svg>`;

export function StateMark({ state, large }) {
  const { t } = useDesk();
  return html`<span class=${`state ${large ? 'large' : ''}`} data-state=${state}>
    <${Icon} name=${state} /> ${t.states[state] ?? state}
  </span>`;
}

/** A value in words: numbers as the language writes them, texts as they are. */
export function valueText(desk, value) {
  if (typeof value === 'boolean') return value ? desk.t.yes : desk.t.no;
  return typeof value === 'number' ? desk.number(value) : String(value);
}

/** A value with its unit; `kind` is that of a measured one. */
export const Quantity = ({ value, unit, kind }) => {
  const desk = useDesk();
  if (typeof value === 'boolean') return html`<span class="quantity">${value ? desk.t.yes : desk.t.no}</span>`;
  if (typeof value !== 'number') return html`<bdi class="quantity">${value}</bdi>`;
  const text = kind ? desk.measured(value, kind) : desk.number(value);
  return html`<${Ltr} class="quantity">${text}${unit ? html` <span class="unit">${unitText(unit)}</span>` : ''}<//>`;
};

/** One tag. A value that is not good is never shown: a dash, and why. */
export function Tag({ name, tag }) {
  const desk = useDesk();
  const { t } = desk;
  const output = tag.level !== undefined;
  const word = (on) => (output ? (on ? t.on : t.off) : on ? t.yes : t.no);
  const good = tag.quality === 'good' && tag.value !== null;
  const differs = good && output && tag.level !== null && !near(tag.value, tag.level);
  return html`<div class="tag" data-tag=${name} data-quality=${good ? 'good' : 'bad'}>
    <dt><${Ltr}>${name}<//></dt>
    <dd>
      ${good
        ? html`<span class="value" data-on=${tag.value === true ? 'yes' : null}>
            ${typeof tag.value === 'boolean'
              ? html`<span class="lamp" aria-hidden="true"></span>${word(tag.value)}`
              : html`<${Quantity} value=${tag.value} unit=${tag.unit} kind=${tag.kind} />`}
          </span>`
        : html`<span class="value none"><span aria-hidden="true">—</span></span>
            <span class="why"><bdi>${t.qualities[tag.quality] ?? tag.quality}</bdi></span>`}
      ${differs &&
      html`<span class="why">${t.set} ${typeof tag.level === 'boolean'
        ? word(tag.level)
        : html`<${Quantity} value=${tag.level} unit=${tag.unit} kind=${tag.kind} />`}</span>`}
      ${tag.trouble &&
      html`<span class="why trouble">${good && html`<bdi>${desk.say(tag.trouble_say)}</bdi>`}
        <${Detail} text=${tag.trouble} /></span>`}
    </dd>
  </div>`;
}

const near = (a, b) => (typeof a === 'number' ? Math.abs(a - b) <= 0.02 * Math.max(1, Math.abs(b)) : a === b);

export const Time = ({ seconds }) => html`<${Ltr} class="time">${duration(seconds)}<//>`;

/** Asks before something that cannot be undone. The safe way out has the focus. */
export function Confirm({ title, text, yes, command, onYes, onNo }) {
  const { t } = useDesk();
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
    dialog.current.querySelector('.back').focus();
  }, []);
  return html`<dialog ref=${dialog} class="confirm" onCancel=${onNo} aria-labelledby="confirm-title">
    <h2 id="confirm-title">${title}</h2>
    <p>${text}</p>
    <div class="buttons">
      <button type="button" class="back" onClick=${onNo}>${t.back}</button>
      <button type="button" class="danger" data-command=${command} onClick=${onYes}>
        <${Icon} name=${command} /> ${yes}
      </button>
    </div>
  </dialog>`;
}

/** What a command came to, where it was given: a text, or one in several languages; null where nothing came back. */
export function Fault({ error }) {
  const desk = useDesk();
  if (error === '' || error === undefined) return null;
  const text = typeof error === 'string' ? error : desk.say(error) || desk.t.noAnswer;
  return html`<p class="fault" role="alert"><${Icon} name="bell" /> <bdi>${text}</bdi></p>`;
}

/** What a driver said, for a technician: English in any language. */
export const Detail = ({ text }) =>
  text ? html`<span class="detail"><bdi dir="ltr" lang="en">${text}</bdi></span>` : null;
