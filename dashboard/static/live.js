'use strict';

// Live updates of a page that has data-live. The server renders the parts that change, and sends them as server-sent events with
// the new samples of the charts. Without this script, the page shows the state at which it was loaded.
(() => {
  const root = document.querySelector('[data-live]');
  if (!root || !window.EventSource) return;

  const WIDTH = 900; // as in chart.go: one unit is a second
  const HEIGHT = 200;
  const GAP = 3500;
  const AGAIN = 15000; // ms until the next attempt, after the server has rejected a stream
  const GLANCE = 15000; // ms between two updates of a hidden page, whose title may still be visible
  const SILENCE = 10000; // ms by which an event may be late; then the page says that it has no connection

  const find = (selector, within = root) => within.querySelector(selector);
  const all = (selector, within = root) => [...within.querySelectorAll(selector)];
  const controls = find('[data-controls]');
  const connection = find('[data-connection]');
  const title = document.title;

  let every = Number(stored('every')) || 1;
  let paused = false;
  let source = null;
  let timer = 0;
  let silence = 0;
  let heard = new Date(); // when the last event arrived
  let lost = false; // the page says that it has no connection
  let points = [];
  let said = gists(claims()); // the claims of the last event, which are not announced again

  function stored(name) {
    try { return localStorage.getItem(name); } catch { return null; } // the browser may forbid it
  }

  function store(name, value) {
    try { localStorage.setItem(name, value); } catch { /* the choice is not kept */ }
  }

  // The connection.

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function open() {
    close();
    if (paused) {
      expectNothing();
      return;
    }
    if (!silence) expect(); // an attempt after a failure does not restart the timeout
    const since = points.length ? points[points.length - 1].t : 0;
    source = new EventSource(`/live?page=${root.dataset.live}&every=${every}&since=${since}`);
    sayTrying();
    source.addEventListener('frame', (event) => {
      say('live', 'good');
      heard = new Date();
      lost = false;
      if (document.hidden) glanceAgain();
      else expect();
      show(JSON.parse(event.data));
    });
    source.onerror = () => {
      if (!source || source.readyState !== EventSource.CLOSED) { // the browser reconnects by itself, as after each stream's end
        sayTrying();
        return;
      }
      timer = setTimeout(open, AGAIN);
      ask(source);
    };
  }

  // Closes the stream of a hidden page, and opens it again later for one event, so that the title in the tab stays true. In between,
  // the page holds none of the server's streams, and none of the few connections that a browser opens to one server. Browsers may
  // delay the timer to once a minute.
  function glanceAgain() {
    close();
    expectNothing();
    timer = setTimeout(open, GLANCE);
  }

  // Loads the page itself after the server has rejected the given stream. If the session is over, the server redirects to the
  // sign-in. If only the streams are all in use, the page shows the loaded state until the next attempt.
  async function ask(refused) {
    try {
      const answer = await fetch(location.href, {
        headers: { Accept: 'text/html' }, cache: 'no-store', signal: AbortSignal.timeout(AGAIN),
      });
      if (answer.redirected && new URL(answer.url).pathname === '/signin') location.reload();
      const text = await answer.text();
      if (source !== refused) return; // paused meanwhile, or trying again
      if (take(new DOMParser().parseFromString(text, 'text/html'))) return;
    } catch { /* the server does not answer */ }
    if (source === refused) say('no connection', 'bad');
  }

  // Copies the changing elements from a loaded page. It returns false if that is another page, such as a proxy's.
  function take(page) {
    const changing = '[data-part], [data-line], [data-now], [data-top], [data-half]';
    const ours = all(changing);
    const theirs = all(changing, page);
    if (ours.length !== theirs.length) return false;
    say('no live updates', 'warn');
    heard = new Date();
    lost = false;
    expectNothing();
    ours.forEach((element, i) => {
      if (element.hasAttribute('d')) element.setAttribute('d', theirs[i].getAttribute('d'));
      else element.innerHTML = theirs[i].innerHTML;
      element.shown = undefined; // the next event may have the HTML of the last one, and must be shown
    });
    announce();
    return true;
  }

  // The timeout for the next event. It also detects a connection that is lost without an error.

  function expect() {
    clearTimeout(silence);
    silence = setTimeout(lose, every * 1000 + SILENCE);
  }

  function expectNothing() {
    clearTimeout(silence);
    silence = 0;
  }

  // Replaces the state with a sentence that says since when there is no connection.
  function lose() {
    const sentence = `No connection since ${heard.toISOString().slice(11, 19)} UTC.`;
    say('no connection', 'bad');
    lost = true;
    said = [sentence];
    document.title = `! ${sentence}`;
    find('[data-said]').textContent = sentence;
    const part = find('[data-part="state"], [data-part="summary"]');
    const box = document.createElement('div');
    const text = document.createElement('p');
    box.className = part.dataset.part === 'state' ? 'state bad' : 'notice bad';
    if (part.dataset.part === 'state') box.dataset.level = 'bad';
    text.className = 'sentence';
    text.textContent = sentence;
    box.append(text, 'The numbers below are from then.');
    part.replaceChildren(box);
    part.shown = undefined; // the next event restores the server's state
  }

  function sayTrying() {
    if (lost) say('no connection', 'bad');
    else say('connecting', '');
  }

  function say(text, kind) {
    connection.textContent = text;
    connection.className = `pill ${kind}`;
  }

  // Showing an event.

  function show(message) {
    for (const [name, html] of Object.entries(message.parts)) {
      const part = find(`[data-part="${name}"]`);
      if (part && part.shown !== html) {
        part.innerHTML = html; // the server has escaped it
        part.shown = html;
      }
    }
    announce();
    points = points.filter((point) => !message.now || point.t <= message.now); // the server's clock may be set back
    const last = points.length ? points[points.length - 1].t : 0;
    for (const point of message.points || []) if (point.t > last) points.push(point);
    points = points.filter((point) => point.t > message.now - WIDTH * 1000);
    for (const figure of all('[data-chart]')) draw(figure, message.now);
  }

  // Announces, to screen readers and in the tab's title, a change of the state or a new problem, but not a change of a number.
  function announce() {
    const [headline, ...beside] = claims();
    if (!headline) {
      document.title = title;
      find('[data-said]').textContent = '';
      return;
    }
    document.title = headline.level === 'good' ? title : `! ${headline.text}`;
    const news = beside.filter((claim) => !said.includes(gist(claim)));
    if (gist(headline) !== said[0]) news.unshift(headline);
    said = gists([headline, ...beside]);
    if (news.length) find('[data-said]').textContent = [...new Set(news.map((claim) => claim.text))].join(' ');
  }

  // Returns the claims of the state: its news first, then the problems that it lists. The news may repeat one of these.
  function claims() {
    const state = find('[data-level]');
    if (!state) return [];
    const beside = all('li:not(.good)', state).map((item) => ({ level: item.className, text: find('strong', item).textContent }));
    return [{ level: state.dataset.level, text: state.dataset.news }, ...beside];
  }

  function gists(list) {
    return list.map(gist);
  }

  // Returns the part of a claim that makes it new if it changes: its level, and its sentence up to ":" or ";" without numbers, units
  // and plurals.
  function gist(claim) {
    const [words] = claim.text.split(/[:;]/);
    const plain = words.replace(/[\d.,]+( (s|min|h|d)\b)?/g, '').replace(/s\b/g, '').replace(/\s+/g, ' ');
    return `${claim.level} ${plain}`;
  }

  // The charts.

  function draw(figure, now) {
    const lines = all('[data-line]', figure);
    const kind = figure.dataset.chart;
    let top = kind === 'age' ? 2000 : 10;
    for (const line of lines) for (const point of points) top = Math.max(top, point[line.dataset.line]);
    top = ceiling(top);
    for (const line of lines) {
      const key = line.dataset.line;
      line.setAttribute('d', path(key, top, now));
      const value = points.length ? points[points.length - 1][key] : 0;
      find(`[data-now="${key}"]`, figure).textContent = format(kind, value);
    }
    find('[data-top]', figure).textContent = format(kind, top);
    find('[data-half]', figure).textContent = format(kind, top / 2);
    figure.now = now;
  }

  function ceiling(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 3, 4, 6, 8, 10].find((factor) => factor * power >= value) * power;
  }

  function path(key, top, now) {
    let text = '';
    let last = -Infinity;
    for (const point of points) {
      if (point[key] < 0) continue;
      const x = WIDTH - (now - point.t) / 1000;
      const y = HEIGHT * (1 - point[key] / top);
      text += `${point.t - last > GAP ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
      last = point.t;
    }
    return text;
  }

  function format(kind, value) {
    if (value < 0) return '–';
    if (kind === 'age') return age(value / 1000);
    if (kind === 'keys') return number(value);
    return `${value > 0 && value < 9.95 ? Math.max(value, 0.1).toFixed(1).replace('.0', '') : number(value)}/s`;
  }

  function number(value) {
    return Math.round(value).toLocaleString('en-US');
  }

  function age(seconds) { // as Age in internal/health/format.go
    if (seconds <= 0) return '0 s';
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    if (seconds < 600) return pair(seconds, 60, 'min', 1, 's');
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return pair(seconds, 3600, 'h', 60, 'min');
    return pair(seconds, 86400, 'd', 3600, 'h');
  }

  function pair(seconds, large, largeName, small, smallName) {
    const rest = Math.floor((seconds % large) / small);
    return `${Math.floor(seconds / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ''}`;
  }

  // The values of a chart at one time.

  function read(figure, at) {
    if (!points.length || !figure.now) return;
    const wanted = figure.now - (WIDTH - at) * 1000;
    const point = points.reduce((best, each) => (Math.abs(each.t - wanted) < Math.abs(best.t - wanted) ? each : best));
    const x = WIDTH - (figure.now - point.t) / 1000;
    find('.cursor', figure).setAttribute('d', `M${x} 0V${HEIGHT}`);
    const out = find('.readout', figure);
    const values = all('.key', figure).map((key) => {
      const value = find('[data-now]', key);
      return `${key.firstChild.textContent.trim()} ${format(figure.dataset.chart, point[value.dataset.now])}`;
    });
    out.textContent = `${new Date(point.t).toISOString().slice(11, 19)} UTC · ${values.join(' · ')}`;
    out.hidden = false;
  }

  function unread(figure) {
    find('.cursor', figure).setAttribute('d', '');
    find('.readout', figure).hidden = true;
  }

  for (const figure of all('[data-chart]')) {
    const plot = find('.plot', figure);
    const drawing = find('svg', figure);
    let at = WIDTH;
    plot.tabIndex = 0;
    plot.setAttribute('role', 'group');
    plot.setAttribute('aria-label', `${drawing.getAttribute('aria-label')}; the arrow keys show its values`);
    plot.addEventListener('pointermove', (event) => {
      const box = drawing.getBoundingClientRect();
      at = Math.min(WIDTH, Math.max(0, ((event.clientX - box.left) / box.width) * WIDTH));
      read(figure, at);
    });
    plot.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -10, ArrowRight: 10, Home: -WIDTH, End: WIDTH }[event.key];
      if (!step) return;
      event.preventDefault();
      at = Math.min(WIDTH, Math.max(0, at + step));
      read(figure, at);
    });
    plot.addEventListener('pointerleave', () => unread(figure));
    plot.addEventListener('blur', () => unread(figure));
  }

  // The controls.

  function choose(seconds) {
    every = seconds;
    store('every', String(seconds));
    for (const button of all('[data-every]')) button.setAttribute('aria-pressed', String(Number(button.dataset.every) === seconds));
  }

  for (const button of all('[data-every]')) {
    button.addEventListener('click', () => {
      choose(Number(button.dataset.every));
      open();
    });
  }
  const pause = find('[data-pause]');
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'Go on' : 'Pause';
    open();
    if (!paused) return;
    say('paused', 'warn');
    document.title = `Paused: ${title}`; // the state in the title would soon be out of date
  });
  document.addEventListener('visibilitychange', () => {
    if (!paused) open();
  });
  window.addEventListener('pagehide', () => {
    close();
    expectNothing();
  });
  window.addEventListener('pageshow', (event) => {
    if (event.persisted) open();
  });

  controls.hidden = false;
  choose([1, 5, 15].includes(every) ? every : 1);
  open();
})();
