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

  // Paper cannot be unfolded: print every table.
  let opened = [];
  window.addEventListener('beforeprint', () => {
    opened = [...document.querySelectorAll('details:not([open])')];
    opened.forEach((element) => { element.open = true; });
  });
  window.addEventListener('afterprint', () => opened.forEach((element) => { element.open = false; }));
})();
