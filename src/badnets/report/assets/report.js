// Draws every chart of the page from the JSON it carries. The interpreter stands in for eval, so the page's policy can forbid it.
(function () {
  'use strict';
  const refuse = () => Promise.reject(new Error('this page loads nothing'));
  const loader = { load: refuse, sanitize: refuse, http: refuse, file: refuse };
  const specs = JSON.parse(document.getElementById('chart-data').textContent);

  function draw(id, spec) {
    const element = document.getElementById(id);
    const compiled = vegaLite.compile(spec).spec;
    const runtime = vega.parse(compiled, null, { ast: true });
    const view = new vega.View(runtime, {
      renderer: 'svg',
      container: element,
      expr: vegaInterpreter.expressionInterpreter,
      loader: loader,
      hover: false,
      logLevel: vega.Error
    });
    return view.runAsync().then(() => element.classList.add('drawn'));
  }

  for (const [id, spec] of Object.entries(specs)) {
    draw(id, spec).catch((error) => {
      document.getElementById(id).classList.add('failed');
      console.error(id, error);
    });
  }

  // A film is a strip of frames; here one frame at a time, chosen with a slider, which keyboards and fingers can move.
  for (const film of document.querySelectorAll('.film')) {
    const frames = [...film.querySelectorAll('.pictures > li')];
    if (frames.length < 2) continue;
    const slider = document.createElement('input');
    const told = document.createElement('span');
    const label = document.createElement('label');
    Object.assign(slider, { type: 'range', min: 1, max: frames.length, step: 1, value: 1 });
    const show = () => {
      const at = Number(slider.value) - 1;
      frames.forEach((frame, i) => frame.classList.toggle('away', i !== at));
      told.textContent = 'Frame ' + (at + 1) + ' of ' + frames.length;
      const image = frames[at].querySelector('[alt], [aria-label]');
      slider.setAttribute('aria-valuetext', told.textContent + ': ' + (image.getAttribute('alt') || image.getAttribute('aria-label')));
    };
    slider.addEventListener('input', show);
    label.className = 'slide';
    label.append(told, slider);
    film.classList.add('sliding');
    film.prepend(label);
    show();
  }

  // Paper cannot be unfolded: print every table.
  let opened = [];
  window.addEventListener('beforeprint', () => {
    opened = [...document.querySelectorAll('details:not([open])')];
    opened.forEach((element) => { element.open = true; });
  });
  window.addEventListener('afterprint', () => opened.forEach((element) => { element.open = false; }));
})();
