"""Looks: calm, high contrast, colour only where something differs from normal. No outside font, image or script."""

CSS = """
:root { --ink:#10202f; --soft:#44546a; --line:#dbe2ea; --paper:#fff; --ground:#f2f5f8; --teal:#0b6e6e;
  --teal2:#e2f1f0;
  --red:#b3261e; --red2:#fdecea; --amber:#7a4b00; --amber2:#fff3d6; --blue:#1f4f8f; --blue2:#e8f0fb; }
body, .nicegui-content { background:var(--ground); color:var(--ink);
  font-family:Roboto,"Noto Sans","DejaVu Sans",sans-serif; }
.nicegui-content { padding:0; gap:0; align-items:stretch; min-height:100vh; }
.tz-top { background:#0e2233; color:#fff; display:flex; align-items:center; gap:18px; padding:10px 22px;
  flex-wrap:wrap; }
.tz-brand { color:#fff !important; font-weight:700; font-size:20px; letter-spacing:.02em;
  text-decoration:none !important;
  display:flex; align-items:center; gap:10px; }
.tz-brand::before { content:""; width:16px; height:16px; border-radius:4px 4px 12px 4px; background:#35c3b5;
  display:block; }
.tz-crumb { color:#c4d3e0; font-size:15px; }
.tz-grow { flex:1; }
.tz-clock { font-variant-numeric:tabular-nums; color:#dbe7f1; font-size:15px; white-space:nowrap; }
.tz-langs { display:flex; border:1px solid #4b647b; border-radius:8px; overflow:hidden; }
.tz-langs a { color:#dbe7f1 !important; padding:5px 11px; text-decoration:none !important; font-size:14px; }
.tz-langs a.on { background:#35c3b5; color:#06231f !important; font-weight:700; }
.tz-langs a:focus-visible, .tz-brand:focus-visible, .tz-card a:focus-visible { outline:3px solid #ffd166;
  outline-offset:-2px; }
.tz-main { max-width:1240px; width:100%; margin:0 auto; padding:20px 22px 48px; display:flex;
  flex-direction:column; gap:16px; }
.tz-banner { border-radius:10px; padding:12px 18px; font-weight:600; font-size:16px; display:flex; gap:12px;
  flex-wrap:wrap;
  align-items:center; }
.tz-sim { background:repeating-linear-gradient(135deg,#ffe9b3 0 18px,#fff3d6 18px 36px); color:#5c3900;
  border:1px solid #e0b14b; }
.tz-alarm { background:var(--red); color:#fff; font-size:19px; }
.tz-alarm a { color:#fff !important; font-weight:800; text-decoration:underline !important; white-space:nowrap; }
.tz-warn { background:var(--amber2); color:var(--amber); border:1px solid #e0b14b; }
.tz-headline { font-size:25px; font-weight:600; line-height:1.25; margin:4px 0 2px; }
.tz-sites { display:grid; grid-template-columns:repeat(auto-fill,minmax(330px,1fr)); gap:16px; }
.tz-card { background:var(--paper); border:1px solid var(--line); border-radius:14px; padding:18px 20px;
  box-shadow:0 1px 2px rgba(16,32,47,.05); color:var(--ink) !important; text-decoration:none !important;
  min-width:0; }
a.tz-card:hover { border-color:#8fb6b4; box-shadow:0 4px 16px rgba(16,32,47,.10); }
.tz-row { display:flex; align-items:baseline; gap:10px; flex-wrap:wrap; }
.tz-between { justify-content:space-between; }
.tz-name { font-size:18px; font-weight:650; }
.tz-title { font-size:14px; font-weight:650; color:var(--soft); text-transform:none; margin-bottom:8px; }
.tz-soft { color:var(--soft); font-size:14px; }
.tz-kw { font-size:46px; font-weight:700; line-height:1.1; font-variant-numeric:tabular-nums;
  letter-spacing:-.01em; }
.tz-hero .tz-kw { font-size:76px; }
.tz-unit { font-size:20px; color:var(--soft); font-weight:500; }
.tz-stale { color:#5d6b7a !important; }
.tz-stale.tz-kw { text-decoration:underline dotted 3px #9a6a00; text-underline-offset:8px; }
.tz-unknown { color:#5d6b7a; }
.tz-chip { display:inline-flex; align-items:center; gap:6px; border-radius:999px; padding:3px 11px;
  font-size:13.5px; font-weight:600;
  background:#e9eef3; color:#2c3d50; white-space:nowrap; }
.tz-chip.good { background:var(--teal2); color:#07504f; } .tz-chip.bad { background:var(--red2); color:#8c1d18; }
.tz-chip.warn { background:var(--amber2); color:var(--amber); } .tz-chip.info { background:var(--blue2);
  color:var(--blue); }
.tz-bar { height:12px; border-radius:6px; background:#e6ebf0; position:relative; overflow:visible;
  margin:12px 0 6px; }
.tz-fill { position:absolute; left:0; top:0; bottom:0; border-radius:6px; background:var(--teal); max-width:100%; }
.tz-fill.over { background:var(--red); } .tz-fill.stale { background:#a9b6c2; }
.tz-mark { position:absolute; top:-5px; bottom:-5px; width:3px; background:var(--red); border-radius:2px; }
.tz-hero { display:grid; grid-template-columns:minmax(0,1.1fr) minmax(0,1fr); gap:16px; }
.tz-column { display:flex; flex-direction:column; gap:16px; min-width:0; } .tz-grows { flex:1; }
.tz-three { display:grid; grid-template-columns:repeat(3,minmax(0,1fr)); gap:16px; }
.tz-facts { display:grid; grid-template-columns:repeat(auto-fit,minmax(96px,1fr)); gap:10px 16px; margin-top:14px;
  }
.tz-fact .tz-value { display:block; font-size:19px; font-variant-numeric:tabular-nums; font-weight:650; }
.tz-fact { color:var(--soft); font-size:13.5px; }
.tz-steps { display:flex; flex-direction:column; }
.tz-step { display:grid; grid-template-columns:22px minmax(0,1fr) auto; gap:4px 10px; padding:5px 0;
  position:relative; color:#5d6b7a; font-size:15px; }
.tz-step::before { content:""; width:12px; height:12px; border-radius:50%; border:2.5px solid #b6c2ce;
  background:#fff; margin:4px 0 0 2px; z-index:1; }
.tz-step::after { content:""; position:absolute; left:8px; top:20px; bottom:-8px; width:2px; background:#dbe2ea; }
.tz-step:last-child::after { display:none; }
.tz-step.on { color:var(--ink); font-weight:600; } .tz-step.on::before { background:var(--teal);
  border-color:var(--teal); }
.tz-step.bad { color:#8c1d18; font-weight:650; } .tz-step.bad::before { background:var(--red);
  border-color:var(--red); }
.tz-step .t { font-variant-numeric:tabular-nums; font-weight:500; }
.tz-step .x { grid-column:2 / 4; font-weight:400; color:var(--soft); font-size:13.5px; overflow-wrap:anywhere; }
.tz-notices { display:flex; flex-direction:column; gap:6px; margin-top:8px; }
.tz-notices:empty { display:none; }
.tz-notice { background:var(--amber2); color:var(--amber); border-left:4px solid #e0b14b; border-radius:6px;
  padding:6px 10px; font-size:14px; font-weight:600; overflow-wrap:anywhere; }
.tz-aloud { background:#e6f4ea; color:#0b5d2a; border-left:4px solid #2e9e5b; border-radius:6px; padding:8px 12px;
  font-size:18px; font-weight:700; }
.tz-word { border-left:4px solid #9db2c6; border-radius:6px; padding:6px 10px; font-size:14px; background:#f2f6fa;
  overflow-wrap:anywhere; }
.tz-calls { display:flex; flex-direction:column; gap:14px; width:100%; }
.tz-call { display:flex; flex-direction:column; gap:4px; }
.tz-script { border-left:3px solid #fff; padding-left:12px; font-weight:700; font-size:18px; }
.tz-small { font-size:14px; font-weight:500; }
.tz-halves { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr)); gap:14px 36px; }
.tz-halves > * { min-width:0; }
.tz-drill { background:repeating-linear-gradient(135deg,#ffd45e 0 18px,#fff1c2 18px 36px); color:#4a3000;
  border:2px solid #b98500; font-size:20px; font-weight:800; justify-content:center; }
.tz-wraps > :last-child { white-space:normal !important; text-align:right; overflow-wrap:anywhere; }
.tz-list { display:flex; flex-direction:column; }
.tz-item { display:flex; justify-content:space-between; gap:12px; padding:6px 0; border-bottom:1px solid #eef2f6;
  font-size:15px; }
.tz-item:last-child { border-bottom:0; } .tz-item > :last-child { font-variant-numeric:tabular-nums; font-weight:600;
  white-space:nowrap; }
.tz-item > :first-child { overflow-wrap:anywhere; }
.tz-table { width:100%; border-collapse:collapse; font-size:15px; }
.tz-table th { text-align:left; color:var(--soft); font-weight:600; font-size:13.5px; padding:6px 10px;
  border-bottom:2px solid var(--line); }
.tz-table td { padding:7px 10px; border-bottom:1px solid #eef2f6; font-variant-numeric:tabular-nums; }
.tz-table .r { text-align:right; } .tz-table tr.gap td { background:var(--red2); color:#8c1d18; font-weight:600; }
.tz-scroll { overflow-x:auto; }
.tz-funnel { display:grid; grid-template-columns:repeat(6,minmax(0,1fr)); gap:8px; margin:4px 0 12px; }
.tz-stage { background:var(--teal2); border-radius:8px; padding:8px 10px; display:flex; flex-direction:column;
  font-size:14px; min-width:0; overflow-wrap:anywhere; } .tz-stage.none { background:#eef2f6; color:#5d6b7a; }
.tz-count { font-size:26px; font-weight:700; line-height:1.1; font-variant-numeric:tabular-nums; }
.tz-split { display:flex; height:16px; border-radius:8px; overflow:hidden; background:#e6ebf0; margin:8px 0 10px; }
.tz-split i { display:block; height:100%; } .tz-split .h { background:var(--teal); } .tz-split .s {
  background:#6b8fc0; }
@media (max-width:860px) { .tz-hero, .tz-three { grid-template-columns:minmax(0,1fr); } .tz-hero .tz-kw {
  font-size:58px; }
  .tz-main { padding:14px 12px 40px; } .tz-top { padding:10px 12px; gap:10px; } .tz-sites {
  grid-template-columns:minmax(0,1fr); }
  .tz-funnel { grid-template-columns:repeat(3,minmax(0,1fr)); }
  .tz-headline { font-size:20px; } .tz-table th, .tz-table td { padding:6px 6px; font-size:14px; } }
"""
