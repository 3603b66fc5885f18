defmodule Mlx.Axon.LayersTest do
  use ExUnit.Case, async: true

  alias Mlx.{BumblebeeModels, Oracle, Quantization}

  @moduletag :axon
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Both may be missing, where packages come from a folder.
  @compile {:no_warn_undefined,
            [Axon, Axon.ModelState, Bumblebee, Bumblebee.Text.Generation, Mlx.Axon]}

  # It is not there without Axon.
  for module <- [Mlx.Axon], Code.ensure_loaded?(module), do: doctest(module)

  setup do
    :rand.seed(:exsss, {1, 2, 3})
    :ok
  end

  describe "models of Bumblebee's:" do
    @describetag :bumblebee

    # How many layers of each kind there are.
    for {name, architecture, expected} <- [
          {:distilbert, :base, %{layer_norm: 5, attention: 2, gelu: 2}},
          {:bert, :for_masked_language_modeling, %{layer_norm: 6, attention: 2, gelu: 3}},
          {:llama, :for_causal_language_modeling,
           %{rms_norm: 5, rope: 2, attention: 2, swiglu: 2}},
          {:qwen3, :for_causal_language_modeling,
           %{rms_norm: 9, rope: 2, attention: 2, swiglu: 2}},
          {:gemma, :base, %{rms_norm: 5, rope: 2, attention: 2, gelu: 2}},
          {:vit, :base, %{layer_norm: 5, attention: 2, gelu: 2}},
          {:whisper, :base, %{layer_norm: 7, attention: 3, gelu: 4}},
          {:clip_text, :base, %{layer_norm: 5, attention: 2, gelu: 2}},
          {:unet, :base, %{layer_norm: 12, attention: 8, gelu: 4}}
        ] do
      test "#{name}" do
        name = unquote(name)
        ulps = unquote(if name == :unet, do: 64, else: 16)
        spec = BumblebeeModels.spec(name, architecture: unquote(architecture))
        expected = unquote(Macro.escape(expected))
        assert swapped_kinds(spec) == expected
        assert_equal(spec, BumblebeeModels.inputs(name), ulps)
      end
    end

    test "positions that are scaled" do
      for strategy <- BumblebeeModels.scalings() do
        opts = [rotary_embedding_scaling_strategy: strategy, max_positions: 6, num_blocks: 1]
        spec = BumblebeeModels.spec(:llama, opts)
        assert %{rope: 1} = swapped_kinds(spec)
        assert_equal(spec, BumblebeeModels.inputs(:llama))
      end
    end

    test "positions that are scaled in an unknown way" do
      opts = [rotary_embedding_scaling_strategy: %{type: :other}, num_blocks: 1]
      refute is_map_key(swapped_kinds(BumblebeeModels.spec(:llama, opts)), :rope)
    end

    test "sequences that are filled up on the left" do
      inputs = BumblebeeModels.inputs(:llama)
      mask = Nx.reverse(inputs["attention_mask"], axes: [1])
      assert_equal(BumblebeeModels.spec(:llama), %{inputs | "attention_mask" => mask})
    end

    test "sequences of one token, where they are said to be" do
      ones = Nx.broadcast(Nx.tensor(1, backend: Nx.BinaryBackend), {2, 1})
      inputs = %{"input_ids" => ones, "attention_mask" => ones}
      assert_equal(BumblebeeModels.spec(:llama), inputs)
      assert_equal(BumblebeeModels.spec(:llama), Map.new(inputs, fn {k, x} -> {k, x[0..0]} end))
    end

    test "halves are as close to f32 as they were" do
      spec = BumblebeeModels.spec(:llama)
      inputs = BumblebeeModels.inputs(:llama)
      state = spec |> Bumblebee.build_model() |> BumblebeeModels.state(inputs)

      for type <- [:bf16, :f16] do
        model = Bumblebee.build_model(spec, type: type)
        {rewritten, [_ | _]} = Mlx.Axon.rewrite(model)
        exact = Bumblebee.build_model(spec)

        [exact, before, now] =
          for model <- [exact, model, rewritten] do
            run = BumblebeeModels.runner(model, state, compiler: Mlx.Compiler)
            hd(run.(Mlx.MixedPrecision.cast(state.data, :f32), inputs))
          end

        assert Nx.type(now) == Nx.Type.normalize!(type)
        assert distance(now, exact) <= 2 * distance(before, exact)
      end
    end

    test "some heads of attention are masked" do
      inputs = BumblebeeModels.inputs(:bert)
      mask = Nx.tensor([[1.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 2.0]], backend: Nx.BinaryBackend)
      spec = BumblebeeModels.spec(:bert)
      assert_equal(spec, Map.put(inputs, "attention_head_mask", mask))
    end

    test "the weights of attention can still be had" do
      model = Bumblebee.build_model(BumblebeeModels.spec(:bert))
      inputs = BumblebeeModels.inputs(:bert)
      state = BumblebeeModels.state(model, inputs)
      {rewritten, _} = Mlx.Axon.rewrite(model)

      [expected, got] =
        for model <- [model, rewritten] do
          Axon.predict(model, state, inputs, global_layer_options: [output_attentions: true])
        end

      assert tuple_size(got.attentions) == 2

      for {a, b} <- Enum.zip(Tuple.to_list(got.attentions), Tuple.to_list(expected.attentions)),
          do: assert_close(a, b, 1.0e-5)
    end

    test "tokens are generated with a cache" do
      {[expected, got], args} =
        BumblebeeModels.generators(:qwen3, fn model ->
          {rewritten, [_ | _]} = Mlx.Axon.rewrite(model)
          [model, rewritten]
        end)

      Oracle.assert_same(got, args, oracle: expected)
    end

    test "training, with the same weights dropped" do
      opts = [num_blocks: 1, dropout_rate: 0.1, attention_dropout_rate: 0.3]
      model = Bumblebee.build_model(BumblebeeModels.spec(:bert, opts))
      inputs = BumblebeeModels.inputs(:bert)
      state = BumblebeeModels.state(model, inputs, mode: :train)
      {rewritten, swapped} = Mlx.Axon.rewrite(model)
      assert {_, :attention} = List.keyfind(swapped, :attention, 1)

      [expected, got] = for model <- [model, rewritten], do: gradients(model, state, inputs)
      assert Map.keys(got) == Map.keys(expected)

      for {name, layer} <- expected, {parameter, gradient} <- layer do
        assert_close(got[name][parameter], gradient, 1.0e-4)
      end
    end

    test "kernels in few bits" do
      opts = [hidden_size: 64, intermediate_size: 96, architecture: :for_masked_language_modeling]
      model = Bumblebee.build_model(BumblebeeModels.spec(:bert, opts))
      inputs = BumblebeeModels.inputs(:bert)
      state = BumblebeeModels.state(model, inputs)

      filter = &(not String.contains?(&1, "ffn.intermediate"))
      {packed, names} = Mlx.Axon.quantize(model, state, bits: 8, filter: filter)

      # 96 is no multiple of 64.
      refute Enum.any?(names, &String.contains?(&1, "ffn"))
      assert "encoder.blocks.0.self_attention.query" in names
      assert "language_modeling_head.output" in names
      assert_like_unpacked(model, packed, names, inputs)
      assert_like_unpacked(elem(Mlx.Axon.rewrite(model), 0), packed, names, inputs)
    end
  end

  describe "plain models:" do
    test "norms and gated layers" do
      model =
        Axon.input("x", shape: {nil, 4, 16})
        |> Axon.layer_norm()
        |> gated()
        |> Axon.dense(16, activation: :gelu)
        |> Axon.layer_norm(epsilon: 0.1, name: "last")

      {rewritten, swapped} = Mlx.Axon.rewrite(model)

      assert swapped == [
               {"layer_norm_0", :layer_norm},
               {"multiply_0", :swiglu},
               {"gelu_0", :gelu},
               {"last", :layer_norm}
             ]

      assert_equal(model, rewritten, %{"x" => BumblebeeModels.normal({2, 4, 16})}, 16)
    end

    test "other kinds stay" do
      model = Axon.input("x", shape: {nil, 16}) |> gated() |> Axon.layer_norm()
      assert {_, [{"multiply_0", :swiglu}]} = Mlx.Axon.rewrite(model, only: [:swiglu])
      assert_raise ArgumentError, ~r/:only/, fn -> Mlx.Axon.rewrite(model, only: [:conv]) end
    end

    test "models without such layers are as they were" do
      model =
        Axon.input("x", shape: {nil, 4, 4, 2})
        |> Axon.conv(3)
        |> Axon.layer_norm(channel_index: 1)
        |> Axon.flatten()
        |> Axon.dense(3)

      assert Mlx.Axon.rewrite(model) == {model, []}
    end

    test "layers whose results hooks see stay" do
      x = Axon.input("x", shape: {nil, 16})
      gate = x |> Axon.dense(8) |> Axon.silu() |> Axon.attach_hook(& &1)
      assert {_, []} = x |> Axon.dense(8) |> Axon.multiply(gate) |> Mlx.Axon.rewrite()
    end

    test "kernels in few bits, and what was frozen" do
      model =
        Axon.input("x", shape: {nil, 64})
        |> Axon.dense(128, name: "a")
        |> Axon.dense(32, name: "b", use_bias: false)
        |> Axon.dense(3, name: "c")

      inputs = %{"x" => BumblebeeModels.normal({2, 64})}
      state = BumblebeeModels.state(model, inputs)
      state = Axon.ModelState.freeze(state, &match?(["a", "bias"], &1))
      {packed, names} = Mlx.Axon.quantize(model, state, mode: :mxfp8)
      assert names == ["a", "b", "c"]
      assert Quantization.Tensor.shape(packed.data["b"]["kernel"]) == {128, 32}
      assert_like_unpacked(model, packed, names, inputs)

      frozen = packed.frozen_parameters
      assert Enum.sort(frozen["a"]) == ["bias", "kernel"]
      assert frozen["c"] == ["kernel"]
      assert_raise ArgumentError, fn -> Mlx.Axon.quantize(model, state, axis: 1) end
    end
  end

  defp gated(x) do
    gate = x |> Axon.dense(8) |> Axon.silu()
    x |> Axon.dense(8) |> Axon.multiply(gate) |> Axon.dense(16)
  end

  defp swapped_kinds(spec) do
    {_model, swapped} = spec |> Bumblebee.build_model() |> Mlx.Axon.rewrite()
    Enum.frequencies_by(swapped, &elem(&1, 1))
  end

  defp assert_equal(spec, inputs, ulps \\ 16) do
    model = Bumblebee.build_model(spec)
    {rewritten, [_ | _]} = Mlx.Axon.rewrite(model)
    assert_equal(model, rewritten, inputs, ulps)
  end

  defp assert_equal(model, rewritten, inputs, ulps) do
    state = BumblebeeModels.state(model, inputs)
    # The state of one is that of the other.
    assert shapes(BumblebeeModels.state(rewritten, inputs).data) == shapes(state.data)

    [expected, got] =
      for model <- [model, rewritten], do: BumblebeeModels.runner(model, state)

    scale = BumblebeeModels.scale(expected.(state.data, inputs))
    opts = [oracle: expected, ulps: ulps, scale: scale, signed_zero: false]
    Oracle.assert_same(got, [state.data, inputs], opts)
  end

  defp shapes(%Nx.Tensor{type: type, shape: shape}), do: {type, shape}
  defp shapes(map), do: Map.new(map, fn {name, value} -> {name, shapes(value)} end)

  defp gradients(model, state, inputs) do
    {_init, predict} = Axon.build(model, mode: :train)

    loss = fn data ->
      %{prediction: %{hidden_state: hidden}} =
        predict.(%{state | data: Map.merge(state.data, data)}, inputs)

      Nx.sum(Nx.multiply(hidden, hidden))
    end

    # The keys of dropout are no numbers to have gradients.
    {_keys, data} = Map.split_with(state.data, fn {_, layer} -> is_map_key(layer, "key") end)
    Nx.Defn.jit(&Nx.Defn.grad(&1, loss), compiler: Mlx.Compiler).(data)
  end

  # With the numbers that the packed kernels stand for.
  defp assert_like_unpacked(model, packed, names, inputs) do
    data =
      Map.new(packed.data, fn {name, layer} ->
        if name in names,
          do: {name, Map.update!(layer, "kernel", &Quantization.dequantize/1)},
          else: {name, layer}
      end)

    run = fn parameters ->
      BumblebeeModels.runner(model, packed, compiler: Mlx.Compiler).(
        parameters,
        inputs
      )
    end

    for {got, expected} <- Enum.zip(run.(packed.data), run.(data)),
        do: assert_close(got, expected, 1.0e-3)
  end

  defp assert_close(got, expected, tolerance) do
    largest = expected |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
    assert distance(got, expected) <= tolerance * max(largest, 1.0)
  end

  defp distance(a, b), do: Nx.subtract(a, b) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
end
