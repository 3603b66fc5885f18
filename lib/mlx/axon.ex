if Code.ensure_loaded?(Axon) do
  defmodule Mlx.Axon do
    @moduledoc """
    Makes models of Axon faster and smaller.

        {model, _swapped} = Mlx.Axon.rewrite(model)
        {state, _quantized} = Mlx.Axon.quantize(model, state, bits: 4)

    `rewrite/2` swaps layers for functions of `Mlx.Fast`, and `quantize/3` packs the kernels of dense layers
    into few bits. Both keep the names of layers, so the model and its state fit together
    before and after, and the other models and states of the same architecture do, too.

    This module is there if Axon is a dependency.

    ## Layers

    | | what is swapped | for |
    |---|---|---|
    | `:layer_norm` | `Axon.layer_norm/2` over the last axis | `Mlx.Fast.layer_norm/4` |
    | `:rms_norm` | RMS norms of Bumblebee | `Mlx.Fast.rms_norm/3` |
    | `:rope` | rotary embeddings of Bumblebee, with all their scalings | `Mlx.Fast.rope/3` |
    | `:attention` | attention of Bumblebee | `Mlx.Fast.scaled_dot_product_attention/4` |
    | `:swiglu` | `Axon.multiply/3` of a layer and one that `Axon.silu/2` gives | `Mlx.Fast.swiglu/2` |
    | `:gelu` | `Axon.gelu/2`, and its approximations in Bumblebee | `Mlx.Fast.gelu/2` |

    Bumblebee's layers are known by their functions, as of its version 0.7. Layers that are not known stay as
    they are, those inside `Axon.block/2` among them.
    """

    alias Axon.{ModelState, Node}
    alias Mlx.Axon.{Layers, Rotary}

    @kinds [:layer_norm, :rms_norm, :rope, :attention, :swiglu, :gelu]

    @type kind :: :layer_norm | :rms_norm | :rope | :attention | :swiglu | :gelu

    @doc """
    Swaps layers of a model for fused ones.

    Returns the model, and the names of the layers that were swapped with what they are
    now, in the order in which they are computed. A model without such layers is returned as it is, with
    an empty list. Results are equal within the tolerance of the type, and so are gradients.

    While a model is trained with dropout of the weights of attention, these layers compute what they did
    before.

    ## Options

    * `:only` - the kinds of layers to swap, all of [these](#module-layers) by default

    Raises `ArgumentError` if `:only` has another.

    ## Examples

        iex> model = Axon.input("x") |> Axon.dense(4) |> Axon.layer_norm(name: "norm")
        iex> {_model, swapped} = Mlx.Axon.rewrite(model)
        iex> swapped
        [{"norm", :layer_norm}]
        iex> model |> Mlx.Axon.rewrite(only: [:attention]) |> elem(1)
        []

    """
    @spec rewrite(Axon.t(), keyword) :: {Axon.t(), [{String.t(), kind}]}
    def rewrite(%Axon{nodes: nodes} = model, opts \\ []) do
      kinds = Keyword.validate!(opts, only: @kinds)[:only]

      case kinds -- @kinds do
        [] ->
          :ok

        other ->
          raise ArgumentError, ":only is some of #{inspect(@kinds)}, got: #{inspect(other)}"
      end

      swaps =
        for {name, node} <- named(model),
            {kind, node} <- List.wrap(swap(node, nodes)),
            kind in kinds,
            do: {name, kind, node}

      swapped = Map.new(swaps, fn {_name, _kind, node} -> {node.id, node} end)

      {%{model | nodes: Map.merge(nodes, swapped)},
       for({name, kind, _node} <- swaps, do: {name, kind})}
    end

    @doc """
    Packs the kernels of dense layers into few bits.

    Returns the state with `Mlx.Quantization.Tensor`s in the place of kernels, and the sorted names of the layers
    whose kernels these are. They are frozen, but see below. Dense layers are those of `Axon.dense/3` and the transposed
    ones of Bumblebee, unless their kernel can't be packed: one of integers or of `f64`, or whose inputs
    are no multiple of the size of a group.

    The model stays as it is: with such kernels, its layers multiply with the packed form.

    `Axon.Loop.run/4` makes a state anew, as of Axon 0.8: it unpacks the kernels, and trains what was frozen in the
    state that it was given. The guide to [fine-tuning](fine_tuning.html#adapters) has a step that keeps them.

    ## Options

    * `:filter` - a function of the name of a layer that says whether it is to be packed. All are
      by default.
    * those of `Mlx.Quantization.quantize/2` but `:axis`

    Raises `ArgumentError` for options that `Mlx.Quantization.quantize/2` refuses.

    ## Examples

        iex> model = Axon.input("x", shape: {nil, 64}) |> Axon.dense(8, name: "hidden") |> Axon.dense(2)
        iex> {init, predict} = Axon.build(model)
        iex> x = Nx.broadcast(1.0, {1, 64})
        iex> state = init.(x, Axon.ModelState.empty())
        iex> {state, quantized} = Mlx.Axon.quantize(model, state, bits: 8)
        iex> quantized
        ["hidden"]
        iex> predict.(state, x) |> Nx.shape()
        {1, 2}

    """
    @spec quantize(Axon.t(), ModelState.t(), keyword) :: {ModelState.t(), [String.t()]}
    def quantize(%Axon{} = model, %ModelState{data: data} = state, opts \\ []) do
      {filter, opts} = Keyword.pop(opts, :filter, fn _name -> true end)
      Keyword.validate!(opts, [:mode, :bits, :group_size])

      packed =
        for {name, node} <- named(model),
            axis = inputs_axis(node),
            filter.(name),
            %Nx.Tensor{} = kernel <- [data[name]["kernel"]],
            packs?(kernel, axis, opts),
            into: %{},
            do: {name, Mlx.Quantization.quantize(kernel, [axis: axis] ++ opts)}

      data = Map.new(data, fn {name, layer} -> {name, put_kernel(layer, packed[name])} end)
      names = packed |> Map.keys() |> Enum.sort()
      {freeze(%{state | data: data}, names), names}
    end

    defp put_kernel(layer, nil), do: layer
    defp put_kernel(layer, kernel), do: %{layer | "kernel" => kernel}

    # Beside what was frozen before.
    defp freeze(%{frozen_parameters: frozen} = state, names) do
      kernels = Map.new(names, &{&1, ["kernel"]})

      %{
        state
        | frozen_parameters: Map.merge(frozen, kernels, fn _, a, b -> Enum.uniq(a ++ b) end)
      }
    end

    defp inputs_axis(%Node{op: :dense}), do: 0

    defp inputs_axis(%Node{op: op}) do
      if Layers.bumblebee(op) == :dense_transposed_impl, do: 1
    end

    defp packs?(%{type: type, shape: shape}, axis, opts) do
      size = Keyword.get(opts, :group_size) || group_size(opts[:mode])

      type in [{:f, 32}, {:f, 16}, {:bf, 16}] and tuple_size(shape) == 2 and
        rem(elem(shape, axis), max(size, 32)) == 0
    end

    defp group_size(mode) when mode in [nil, :affine], do: 64
    defp group_size(_mode), do: 32

    # As Axon names the nodes, which depends on those before.
    defp named(model) do
      {named, _counts} =
        model
        |> Axon.reduce_nodes([], &[&1 | &2])
        |> Enum.map_reduce(%{}, fn %{op_name: op} = node, counts ->
          {{node.name.(op, counts), node}, Map.update(counts, op, 1, &(&1 + 1))}
        end)

      named
    end

    ## Each kind

    defp swap(%Node{op: :layer_norm, opts: opts} = node, _nodes) do
      if opts[:channel_index] in [nil, -1],
        do: {:layer_norm, %{node | op: &Layers.layer_norm/4}}
    end

    defp swap(%Node{op: :multiply, parent: [pair]} = node, nodes) do
      with %Node{op_name: :container, parent: [left, right]} = pair <- nodes[pair],
           {gate, up, at} <- gated(nodes[left], nodes[right]),
           true <- unhooked?([pair, nodes[elem({left, right}, at)]]) do
        op = fn _pair, gate, up, _opts -> Layers.swiglu(gate, up) end
        {:swiglu, inputs(node, op, [pair.id, gate, up])}
      else
        _ -> nil
      end
    end

    defp swap(%Node{op: op} = node, nodes) when is_function(op) do
      case Layers.bumblebee(op) do
        :rms_norm_impl_upcast_normalization -> {:rms_norm, %{node | op: &Layers.rms_norm/3}}
        :rms_norm_impl_upcast_all -> {:rms_norm, %{node | op: &Layers.wide_rms_norm/3}}
        :apply_rotary_embedding -> rope(node)
        :attention_output_impl -> attention(node, nodes)
        _ -> gelu(node)
      end
    end

    defp swap(node, _nodes), do: gelu(node)

    defp gelu(%Node{op: op} = node) do
      if op = Layers.gelu(op), do: {:gelu, %{node | op: op}}
    end

    defp gated(%Node{op: :silu, parent: [gate]}, %Node{id: up}), do: {gate, up, 0}
    defp gated(%Node{id: up}, %Node{op: :silu, parent: [gate]}), do: {gate, up, 1}
    defp gated(_left, _right), do: nil

    defp rope(%Node{opts: opts} = node) do
      if Rotary.known?(opts[:scaling_strategy]),
        do: {:rope, %{node | op: &Layers.rope/5}}
    end

    # The weights stay an input: others may use them, and with all nodes still there none gets
    # another name. What is not used is not computed.
    defp attention(%Node{op: op, parent: [dropped, value]} = node, nodes) do
      with %Node{op: :dropout, parent: [weights], opts: [rate: rate]} = dropout <- nodes[dropped],
           %Node{parent: [_, _, _, _, _, _] = parents} = weights <- nodes[weights],
           :attention_weights_impl <- Layers.bumblebee(weights.op),
           true <- unhooked?([dropout, weights]) do
        opts = Keyword.put(weights.opts, :dropout_rate, rate)

        {:attention,
         inputs(%{node | opts: opts}, Layers.attention(op), [dropped, value | parents])}
      else
        _ -> nil
      end
    end

    defp inputs(node, op, parents) do
      %{node | op: op, parent: parents, args: Enum.map(parents, fn _ -> :layer end)}
    end

    # A hook sees what a layer gives, so the layer must be computed.
    defp unhooked?(nodes), do: Enum.all?(nodes, &(&1.hooks == []))
  end
end
