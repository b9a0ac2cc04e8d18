"""The desk's own style and script. Nothing is loaded from anywhere else."""

from __future__ import annotations

STYLE = """
:root{--ink:#14213a;--soft:#5a6880;--line:#d5dbe6;--paper:#fff;--ground:#f1f4f9;--act:#0b5cad;--bad:#b3261e;
--good:#146c2e;--warn:#8a5a00}
*{box-sizing:border-box}
body{margin:0;font:16px/1.45 system-ui,"Segoe UI","Noto Sans",sans-serif;color:var(--ink);background:var(--ground)}
header{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;padding:.7rem 1.2rem;background:#10203c;color:#fff}
header h1{font-size:1.1rem;margin:0;flex:1}
header a{color:#fff;text-decoration:none}
header form{display:flex;gap:.3rem}
header button{background:transparent;border:1px solid #7f93b8;color:#fff;padding:.25rem .6rem}
header button[aria-pressed=true]{background:#fff;color:#10203c}
main{max-width:1080px;grid-template-columns:minmax(0,1fr);margin:1rem auto;padding:0 1rem;display:grid;gap:1rem}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:1rem 1.2rem}
h2{font-size:1.05rem;margin:0 0 .6rem}
.who{color:#c6d3ea;font-size:.9rem}
.sites{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:.7rem}
.site{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.site b{display:block}
.kw{font-size:1.9rem;font-weight:650;font-variant-numeric:tabular-nums}
.stale .kw{color:var(--soft)}
.small,.age{color:var(--soft);font-size:.88rem}
.stale .age{color:var(--warn);font-weight:600}
form.order>*{min-width:0}
input,select{width:100%;min-width:0}
.site{min-width:0;overflow-wrap:anywhere}
section,main>*{min-width:0;overflow-wrap:anywhere}
form.row,.row{margin-top:.7rem}
section form+form{margin-top:.6rem}
form.order{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:.7rem 1rem;align-items:end}
label{display:grid;gap:.2rem;font-size:.9rem;color:var(--soft)}
label.check{display:flex;gap:.5rem;align-items:center}
input,select{font:inherit;padding:.45rem .6rem;border:1px solid #9aa7bd;border-radius:6px;
background:#fff;color:var(--ink)}
input.big{font-size:1.4rem;font-weight:600}
button,.button{font:inherit;font-weight:600;padding:.55rem 1.1rem;border:1px solid var(--act);border-radius:6px;
background:var(--act);color:#fff;cursor:pointer;text-decoration:none;display:inline-block}
button.sign{font-size:1.15rem;padding:.8rem 1.6rem;background:var(--bad);border-color:var(--bad)}
button.quiet,.button.quiet{background:#fff;color:var(--act)}
:focus-visible{outline:3px solid #f2a900;outline-offset:2px}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.35rem .7rem .35rem 0;border-top:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
th{width:13rem;font-weight:500;color:var(--soft)}
.headline{font-size:1.5rem;font-weight:650;margin:.2rem 0 .8rem}
.state{font-size:1.3rem;font-weight:650}
.bad{color:var(--bad);font-weight:600}
.good{color:var(--good);font-weight:600}
.alarm{background:var(--bad);color:#fff;font-size:1.4rem;font-weight:700;padding:.9rem 1.2rem;border-radius:8px}
.aloud{background:#e7f3ea;border-left:6px solid var(--good);padding:.8rem 1.1rem;font-size:1.5rem;font-weight:650}
.note{background:#fff6e0;border-left:6px solid #f2a900;padding:.5rem .9rem}
.alarm p{margin:.2rem 0}
.alarm .small{color:#fff;font-weight:500}
.script{border-left:4px solid #fff;padding-left:1rem;font-size:1.2rem}
.drill{background:repeating-linear-gradient(135deg,#ffe08a 0 18px,#fff1c2 18px 36px);color:#4a3000;font-weight:800;
font-size:1.3rem;text-align:center;padding:.6rem 1rem;border:2px solid #b98500;border-radius:8px;margin:.2rem 0 .6rem}
details{margin-top:.8rem}summary{cursor:pointer;font-weight:600}
textarea{width:100%;font:13px/1.3 monospace;overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:.7rem;align-items:center}
ol{margin:.4rem 0;padding-left:1.3rem}
li{margin:.25rem 0}
code{font-size:.85rem;overflow-wrap:anywhere}
@media(max-width:520px){main{padding:0 .5rem}th,td{display:block;width:auto}td{border-top:0;padding-top:0}
th{padding-bottom:0}.aloud{font-size:1.2rem}.headline{font-size:1.2rem}}
"""

SCRIPT = """
'use strict';
// Replaces parts of the page with what the desk itself rendered, once a second. Central's data never gets here raw.
for (const part of document.querySelectorAll('[data-part]')) {
  let busy = false;
  setInterval(async () => {
    if (busy || part.contains(document.activeElement)) return;
    busy = true;
    try {
      const answer = await fetch(part.dataset.part, {credentials: 'same-origin'});
      if (answer.ok) {
        const text = await answer.text();
        if (part.innerHTML !== text) part.innerHTML = text;
        part.removeAttribute('data-lost');
      } else { part.setAttribute('data-lost', ''); }
    } catch { part.setAttribute('data-lost', ''); }
    busy = false;
  }, 1000);
}
"""
