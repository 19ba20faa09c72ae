/* Inputs that a person rarely needs are folded on the classic canvas, as in Nodes 2.0.

   The frontend keeps an input's `advanced` among the widget's options, which only Nodes 2.0 reads.
   The canvas has the same fold, "Show Advanced" in a node's menu, for widgets that are marked
   themselves, but keeps their places free: they are hidden as well. One that something is
   connected to stays. */

import { app } from '../../../scripts/app.js';

const ALWAYS = 'Comfy.Node.AlwaysShowAdvancedWidgets';

function isConnected(node, widget) {
    const input = node.inputs?.find(each => each.widget?.name === widget.name);
    return input?.link != null;
}

function fold(node, widget) {
    const rarely = () => !app.extensionManager.setting.get(ALWAYS) && !isConnected(node, widget);
    const given = (name, get) =>
        Object.defineProperty(widget, name, { get, set: () => {}, configurable: true });
    given('advanced', rarely);
    given('hidden', () => rarely() && !node.showAdvanced);
}

app.registerExtension({
    name: 'z-magic.fold-advanced',
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith('ZMagic')) return;
        const advanced = (node.widgets ?? []).filter(widget => widget.options?.advanced);
        if (!advanced.length) return;
        advanced.forEach(widget => fold(node, widget));
        node.setSize([node.size[0], node.computeSize()[1]]);
    },
});
