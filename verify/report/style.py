"""The style sheet of the page: system fonts, light and dark, prints well."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2330; --soft: #5b6575; --rule: #d8dde6; --paper: #ffffff; --panel: #f5f7fa;
  --kept: #2563a8; --removed: #d5deea; --yes: #1d7a4c; --no: #b4600c; --attacked: #c2410c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6eaf1; --soft: #9aa6b8; --rule: #38414f; --paper: #14181f; --panel: #1d232d;
    --kept: #6ba6e8; --removed: #34404f; --yes: #4cba85; --no: #e0974a; --attacked: #f08a5a;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .2rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
p { margin: .3rem 0 .9rem; }
.lead, .note, footer, figcaption { color: var(--soft); font-size: .92rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { flex: 1 1 11rem; background: var(--panel); border-radius: .5rem; padding: .7rem 1rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.25; }
.tile span { color: var(--soft); font-size: .88rem; }
.claims { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .9rem; margin: 1rem 0 1.4rem; }
.claims > div { background: var(--panel); border-left: 4px solid; border-radius: .3rem; padding: .8rem 1rem; }
.claims ul { margin: 0; padding-left: 1.1rem; }
.claims li { margin: .3rem 0; font-size: .94rem; }
.yes { border-color: var(--yes) !important; } .yes h3 { color: var(--yes); }
.no { border-color: var(--no) !important; } .no h3 { color: var(--no); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: .4rem 0 1.2rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; }
tbody th { font-weight: 400; }
figure { margin: 1.2rem 0; } figcaption { margin-top: .3rem; }
svg { width: 100%; height: auto; max-width: 45rem; display: block; }
svg text { fill: var(--ink); font: 12.5px system-ui, "Segoe UI", Roboto, sans-serif; }
.kept { fill: var(--kept); } .removed { fill: var(--removed); }
.certified { fill: var(--kept); color: var(--kept); } .open { fill: none; stroke: var(--no); }
.unproved { color: var(--no); }
.attacked { fill: var(--attacked); color: var(--attacked); }
.between { stroke: var(--soft); stroke-opacity: .45; stroke-width: 1.5; }
.grid, .axis { stroke: var(--rule); }
details { margin: .6rem 0 1rem; } summary { cursor: pointer; color: var(--soft); }
.files td { font-family: ui-monospace, Consolas, monospace; font-size: .8rem; overflow-wrap: anywhere; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--rule); padding-top: .8rem; overflow-wrap: anywhere; }
@media print { main { max-width: none; padding: 0; } section { break-inside: avoid-page; } }
"""
