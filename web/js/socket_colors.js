/* A color for each type of socket of this pack, in both renderers; a palette that names one of the
   types has the last word.

   Told apart by color-blind eyes, too, and seen on light and dark nodes: a test works it out. */

import { app } from '../../../scripts/app.js';

const COLORS = {
    ZMAGIC_CONDITIONS: '#d600c1',
    ZMAGIC_SETTINGS: '#21cc9c',
    ZMAGIC_METHOD: '#1b9096',
    ZMAGIC_OPENCLIP: '#dc8312',
    ZMAGIC_FACE_RECOGNIZER: '#cd076c',
    ZMAGIC_LANDMARK_NETWORK: '#a62dec',
    ZMAGIC_FACE_LOCATION: '#9690ff',
    ZMAGIC_SEGMENTER: '#887948',
    ZMAGIC_ONNX_NETWORK: '#935d05',
    ZMAGIC_LPIPS_NETWORK: '#ee99dd',
    ZMAGIC_REGION: '#b6b668',
};

/* Whenever it loads a palette, the frontend empties the entries of types that the palette lacks:
   an empty one stands for ours. */
function fillIn(colors) {
    for (const [type, ours] of Object.entries(COLORS)) {
        let chosen = colors[type];
        Object.defineProperty(colors, type, {
            get: () => chosen || ours,
            set: color => { chosen = color; },
            enumerable: true,
            configurable: true,
        });
    }
}

app.registerExtension({
    name: 'z-magic.socket-colors',
    setup() {
        fillIn(app.canvas.default_connection_color_byType);
        fillIn(LGraphCanvas.link_type_colors);
        // Nodes 2.0 reads variables; a palette sets them on the page itself, which wins.
        const variables = Object.entries(COLORS)
            .map(([type, color]) => `--color-datatype-${type}: ${color};`);
        const style = document.createElement('style');
        style.textContent = `:root { ${variables.join(' ')} }`;
        document.head.append(style);
    },
});
