// The operator's page: what runs, in which step, with which values and alarms, and the commands for it.

import { html, render, useEffect, useRef, useState } from '/web/vendor/preact.js';
import { Alarms } from '/web/alarms.js';
import { Batch } from '/web/batch.js';
import { History } from '/web/history.js';
import { Desk, Icon, useDesk } from '/web/parts.js';
import { Events, Plant } from '/web/plant.js';
import { Start } from '/web/start.js';
import { follow, post } from '/web/stream.js';
import { apart, LANGUAGES, preferred, speak } from '/web/texts.js';

const ENDED = new Set(['complete', 'stopped', 'aborted']);

/** A value that this browser keeps; where it may keep nothing, the page works without. */
function useKept(key, first) {
  const [value, setValue] = useState(() => {
    try {
      return localStorage.getItem(key) ?? first;
    } catch {
      return first;
    }
  });
  const keep = (next) => {
    setValue(next);
    try {
      localStorage.setItem(key, next);
    } catch {
      // kept until the page is closed
    }
  };
  return [value, keep];
}

function Page() {
  const [{ state, link, since }, setLine] = useState({ state: null, link: 'connecting', since: null });
  const [language, setLanguage] = useKept('edge.language', preferred(navigator.languages ?? []));
  const [operator, setOperator] = useKept('edge.operator', '');
  const [nameless, setNameless] = useState(false);
  const name = useRef(null);
  useEffect(() => follow(setLine), []);

  const words = speak(language in LANGUAGES ? language : 'en');
  useEffect(() => {
    document.documentElement.lang = words.language;
    document.documentElement.dir = words.dir;
    document.title = state ? `${state.cell} — edge` : 'edge';
  }, [words.language, state?.cell]);

  const desk = {
    ...words,
    current: link === 'live' && state?.loop.alive === true,
    give: async (path, body) => {
      const by = operator.trim();
      if (by) return post(path, { ...body, by });
      setNameless(true);
      name.current?.focus();
      return { error: words.t.nameFirst };
    },
  };
  const typed = (text) => {
    setOperator(text);
    setNameless(false);
  };

  return html`<${Desk.Provider} value=${desk}>
    <header class="top">
      <h1><bdi>${state?.cell ?? 'edge'}</bdi></h1>
      <${Line} link=${link} alive=${state?.loop.alive} />
      <label class="operator" data-wrong=${nameless ? 'yes' : null}>
        <span>${words.t.operator}</span>
        <input ref=${name} name="operator" value=${operator} maxlength="64" autocomplete="name" dir="auto"
          placeholder=${words.t.operatorHint} aria-invalid=${nameless ? 'true' : null}
          onInput=${(event) => typed(event.currentTarget.value)} />
      </label>
      <div class="languages" role="group" aria-label=${words.t.language}>
        ${Object.entries(LANGUAGES).map(
          ([code, label]) => html`<button type="button" lang=${code} aria-pressed=${code === words.language}
            onClick=${() => setLanguage(code)}>${label}</button>`,
        )}
      </div>
    </header>
    ${link === 'lost' && html`<p class="banner" role="alert">
      <${Icon} name="bell" /> ${words.t.lostSince(apart(words.clock(since)))}</p>`}
    ${link === 'live' && !state.loop.alive && html`<p class="banner" role="alert">
      <${Icon} name="bell" /> ${words.t.loopSilentText}</p>`}
    ${state && html`<${Board} state=${state} />`}
    <footer><${Icon} name="bell" /> ${words.t.notStop}</footer>
  <//>`;
}

/** Whether what the page shows is what is. */
function Line({ link, alive }) {
  const { t } = useDesk();
  const silent = link === 'live' && !alive;
  const text = silent ? t.loopSilent : t[link];
  return html`<p class="line" role="status" data-link=${silent ? 'silent' : link}>
    <span class="lamp" aria-hidden="true"></span>${text}
  </p>`;
}

function Board({ state }) {
  const desk = useDesk();
  const { t } = desk;
  const batches = Object.entries(state.batches).sort(([, one], [, two]) => ENDED.has(one.state) - ENDED.has(two.state));
  const title = (id) => apart(desk.say(state.recipes[state.batches[id]?.recipe]?.title) || id);
  const news = batches.map(([id, one]) => `${id}:${one.state}`).join();
  return html`<${Announcer} state=${state} />
    <main class=${desk.current ? '' : 'stale'}>
      <${Alarms} alarms=${state.alarms} />
      <div class="columns">
        <div>
          <section aria-labelledby="batches-title">
            <h2 id="batches-title">${t.batches}</h2>
            ${batches.length === 0 && html`<p class="quiet"><${Icon} name="idle" /> ${t.noBatch}</p>`}
            ${batches.map(
              ([id, batch]) => html`<${Batch} key=${id} id=${id} batch=${batch} recipe=${state.recipes[batch.recipe]}
                tags=${state.tags} />`,
            )}
          </section>
          <${Start} recipes=${state.recipes} reloaded=${state.reloaded} units=${state.units} devices=${state.devices} title=${title} />
        </div>
        <div>
          <${Plant} units=${state.units} devices=${state.devices} tags=${state.tags} scan=${state.scan_s}
            overruns=${state.loop.overruns} title=${title} />
          <${History} recipes=${state.recipes} news=${news} />
          <${Events} log=${state.log} recipes=${state.recipes} />
        </div>
      </div>
    </main>`;
}

/** Says aloud what an operator must hear: a new state at the next pause, a new alarm at once. */
function Announcer({ state }) {
  const desk = useDesk();
  const { t } = desk;
  const before = useRef(state);
  const [spoken, setSpoken] = useState({ state: '', alarm: '' });
  useEffect(() => {
    const old = before.current;
    before.current = state;
    const changed = Object.entries(state.batches).filter(([id, one]) => one.state !== old.batches[id]?.state);
    const raised = Object.entries(state.alarms).filter(([number]) => !(number in old.alarms));
    if (!changed.length && !raised.length) return;
    setSpoken({
      state: changed
        .map(([, one]) => `${desk.say(state.recipes[one.recipe]?.title) || one.recipe}${t.colon}${t.states[one.state]}`)
        .join('. '),
      alarm: raised.map(([, one]) => `${t.newAlarm}${t.colon}${desk.say(one.say)}`).join('. '),
    });
  }, [state]);
  return html`<p class="unseen" role="status" aria-live="polite" id="spoken-state">${spoken.state}</p>
    <p class="unseen" role="alert" aria-live="assertive" id="spoken-alarm">${spoken.alarm}</p>`;
}

render(html`<${Page} />`, document.body);
