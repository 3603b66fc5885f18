defmodule Mlx.MixedPrecisionTest do
  use ExUnit.Case, async: true
  import Nx.Defn

  alias Mlx.{MixedPrecision, Oracle}

  doctest Mlx.MixedPrecision

  # Axon may be missing, where packages come from a folder.
  @compile {:no_warn_undefined,
            [Axon, Axon.Loop, Axon.MixedPrecision, Axon.ModelState, Polaris.Optimizers]}

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  describe "gradients" do
    # The last is smaller than what f16 has once it is multiplied.
    defp small(weight) do
      factors = Nx.tensor([0.5, 1.0e-4, 2.0e-6])
      weight |> Nx.multiply(MixedPrecision.cast(factors, :f16)) |> Nx.sum() |> Nx.multiply(1.0e-3)
    end

    test "have the type of the weights and are without the scale" do
      for type <- [:bf16, :f16], initial <- [1, 1024] do
        weights = %{a: Nx.tensor([[1.0, -2.0]]), b: {Nx.tensor(3.0)}}
        scale = MixedPrecision.scale(initial: initial)

        run = fn weights, scale ->
          loss = fn %{a: a, b: {b}} ->
            assert Nx.type(a) == Nx.Type.normalize!(type)
            Nx.multiply(Nx.sum(Nx.multiply(a, a)), b)
          end

          {loss, gradients, scale} =
            MixedPrecision.value_and_grad(weights, scale, loss, type: type)

          {loss, gradients.a, elem(gradients.b, 0), scale.factor, scale.steps, scale.finite}
        end

        {loss, a, b, factor, steps, finite} =
          Nx.Defn.jit(run, compiler: Mlx.Compiler).(weights, scale)

        assert {Nx.type(a), Nx.to_list(a)} == {{:f, 32}, [[6.0, -12.0]]}
        assert {Nx.to_number(loss), Nx.to_number(b)} == {15.0, 5.0}
        assert {Nx.to_number(factor), Nx.to_number(steps)} == {initial * 1.0, 1}
        assert Nx.to_number(finite) == 1
      end
    end

    test "that are too small for the type are there with a scale" do
      weight = Nx.tensor([1.0, 1.0, 1.0])

      [[a, b, zero], with_scale] =
        for initial <- [1, 32_768] do
          scale = MixedPrecision.scale(initial: initial)
          {_, gradient, _} = MixedPrecision.value_and_grad(weight, scale, &small/1, type: :f16)
          Nx.to_list(gradient)
        end

      assert_in_delta a, 0.5e-3, 1.0e-5
      # Only half of the number's size is left, and nothing of the next.
      assert b < 1.5e-7 and b != Enum.at(with_scale, 1)
      assert zero == 0.0

      for {got, expected} <- Enum.zip(with_scale, [0.5e-3, 1.0e-7, 2.0e-9]),
          do: assert_in_delta(got / expected, 1, 0.05)
    end

    test "are the same with either backend" do
      run = fn weight ->
        scale = MixedPrecision.scale()
        loss = fn weight -> Nx.sum(Nx.multiply(weight, Nx.multiply(weight, weight))) end
        {loss, gradient, scale} = MixedPrecision.value_and_grad(weight, scale, loss, type: :f16)
        {loss, gradient, scale.factor, scale.finite}
      end

      for numbers <- [[1.0, -0.5, 0.25], [1.0, 200.0, 0.25]] do
        Oracle.assert_same(run, [Nx.tensor(numbers, backend: Nx.BinaryBackend)],
          signed_zero: false
        )
      end
    end
  end

  describe "the scale" do
    defp step(scale, number) do
      weight = Nx.tensor(1.0)
      loss = &Nx.multiply(&1, Nx.tensor(number, type: :f16))
      {_, gradient, scale} = MixedPrecision.value_and_grad(weight, scale, loss, type: :f16)
      accepted = MixedPrecision.accept(scale, Nx.subtract(weight, gradient), weight)
      {Nx.to_number(accepted), Nx.to_number(scale.factor), scale}
    end

    test "shrinks when gradients overflow, whose step is not made" do
      scale = MixedPrecision.scale(initial: 65_536, min: 16_384)
      # 65536 is infinite in f16.
      assert {1.0, 32_768.0, scale} = step(scale, 1.5)
      assert Nx.to_number(scale.finite) == 0
      assert {-0.5, 32_768.0, scale} = step(scale, 1.5)
      assert Nx.to_number(scale.finite) == 1
      assert {1.0, 16_384.0, scale} = step(scale, 4.0)
      # There is a least one.
      assert {1.0, 16_384.0, _scale} = step(scale, 8.0)
    end

    test "shrinks when gradients are NaN" do
      scale = MixedPrecision.scale(initial: 4)
      assert {1.0, 2.0, _} = step(scale, :nan)
    end

    test "grows after steps without overflow, up to the largest" do
      scale = MixedPrecision.scale(initial: 4, period: 3, max: 10)

      {factors, _} =
        Enum.map_reduce(
          [1.0, 1.0, :infinity, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
          scale,
          fn
            number, scale ->
              {_, factor, scale} = step(scale, number)
              {factor, scale}
          end
        )

      assert factors == [4.0, 4.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 10.0]
    end

    test "has options that make sense" do
      for opts <- [[initial: 0], [period: 0], [growth: 0.5], [min: 4, initial: 2], [max: 1]] do
        assert_raise ArgumentError, ~r/a scale has/, fn -> MixedPrecision.scale(opts) end
        assert_raise ArgumentError, ~r/a scale has/, fn -> MixedPrecision.loss_scale(opts) end
      end
    end

    test "goes with types of floats and containers of the same form only" do
      scale = MixedPrecision.scale()
      weight = Nx.tensor(1.0)

      assert_raise ArgumentError, ~r/type of floats/, fn ->
        MixedPrecision.value_and_grad(weight, scale, & &1, type: :s32)
      end

      for {a, b} <- [{{weight, weight}, {weight}}, {{weight}, {weight, weight}}] do
        assert_raise ArgumentError, ~r/tensors than/, fn -> MixedPrecision.accept(scale, a, b) end
      end
    end
  end

  ## Digits, as examples/digits.exs learns them

  defn predict({w1, b1, w2, b2}, images) do
    images |> Nx.dot(w1) |> Nx.add(b1) |> Nx.max(0) |> Nx.dot(w2) |> Nx.add(b2)
  end

  defn loss(weights, images, digits) do
    scores = predict(weights, images) |> MixedPrecision.cast(:f32)
    scores = scores - stop_grad(Nx.reduce_max(scores, axes: [1], keep_axes: true))
    log_sum = scores |> Nx.exp() |> Nx.sum(axes: [1], keep_axes: true) |> Nx.log()
    -Nx.sum((scores - log_sum) * digits) / Nx.axis_size(images, 0)
  end

  defn whole({weights, momenta}, images, digits, _opts \\ []) do
    {loss, gradients} = value_and_grad(weights, &loss(&1, images, digits))
    {moved(weights, momenta, gradients), loss}
  end

  defn halves({{weights, momenta} = before, scale}, images, digits, opts \\ []) do
    images = MixedPrecision.cast(images, opts[:type])

    {loss, gradients, scale} =
      MixedPrecision.value_and_grad(weights, scale, &loss(&1, images, digits), type: opts[:type])

    after_step = moved(weights, momenta, gradients)
    {{MixedPrecision.accept(scale, after_step, before), scale}, loss}
  end

  defnp moved(weights, momenta, gradients) do
    momenta = add(momenta, gradients, 0.9, 1.0)
    {add(weights, momenta, 1.0, -0.1), momenta}
  end

  defnp add({a1, a2, a3, a4}, {b1, b2, b3, b4}, a, b) do
    {a1 * a + b1 * b, a2 * a + b2 * b, a3 * a + b3 * b, a4 * a + b4 * b}
  end

  describe "digits" do
    setup do
      %{data: digits()}
    end

    test "are learnt as well as in f32", %{data: {train, held_out}} do
      {weights, _} = train(&whole/3, start(), train)
      expected = accuracy(weights, held_out)
      assert expected >= 0.95

      for type <- [:bf16, :f16] do
        # So large that the first steps overflow in f16.
        scale = MixedPrecision.scale(initial: 2 ** 24, period: 100)
        {{weights, _}, scale} = train(&halves(&1, &2, &3, type: type), {start(), scale}, train)
        assert accuracy(weights, held_out) >= expected - 0.01
        assert for(w <- Tuple.to_list(weights), do: Nx.type(w)) == List.duplicate({:f, 32}, 4)
        assert Nx.to_number(scale.factor) > 1
        if type == :f16, do: assert(Nx.to_number(scale.factor) < 2 ** 24)
      end
    end

    @tag :axon
    @tag :capture_log
    test "are learnt by Axon", %{data: {train, {images, digits}}} do
      model =
        Axon.input("images", shape: {nil, 64})
        |> Axon.dense(64, activation: :relu)
        |> Axon.dense(10)
        |> Axon.nx(&MixedPrecision.cast(&1, :f32))
        |> Axon.softmax()

      policy =
        Axon.MixedPrecision.create_policy(params: {:f, 32}, compute: {:f, 16}, output: {:f, 16})

      halves = Axon.MixedPrecision.apply_policy(model, policy, only: [:dense, :relu])
      adam = Polaris.Optimizers.adam(learning_rate: 0.01)
      # Overflows at first, too.
      scaled = [loss_scale: MixedPrecision.loss_scale(initial: 2 ** 24)]
      batches = batches(train)

      [expected, got] =
        for {model, optimizer, opts} <- [
              {model, adam, []},
              {halves, MixedPrecision.skip_overflow(adam), scaled}
            ] do
          weights =
            model
            |> Axon.Loop.trainer(
              :categorical_cross_entropy,
              optimizer,
              [log: 0, seed: 42] ++ opts
            )
            |> Axon.Loop.run(batches, Axon.ModelState.empty(),
              epochs: 6,
              compiler: Mlx.Compiler
            )

          assert Nx.type(weights.data["dense_0"]["kernel"]) == {:f, 32}
          read = Axon.predict(model, weights, images, compiler: Mlx.Compiler)
          right(read, digits)
        end

      assert expected >= 0.93
      assert got >= expected - 0.015
    end
  end

  defp digits do
    rows =
      for line <-
            "data/digits.csv.gz"
            |> File.read!()
            |> :zlib.gunzip()
            |> String.split("\n", trim: true),
          do: line |> String.split(",") |> Enum.map(&String.to_integer/1)

    {test, train} = rows |> Enum.with_index() |> Enum.split_with(fn {_, i} -> rem(i, 5) == 0 end)
    {tensors(train), tensors(test)}
  end

  defp tensors(rows) do
    {images, digits} = rows |> Enum.map(fn {row, _} -> Enum.split(row, 64) end) |> Enum.unzip()

    {images |> Nx.tensor(type: :f32) |> Nx.divide(16),
     Nx.equal(Nx.tensor(digits), Nx.iota({1, 10}))}
  end

  defp start do
    key = Nx.Random.key(42)
    {first, key} = Nx.Random.normal(key, 0.0, :math.sqrt(2 / 64), shape: {64, 64})
    {second, _key} = Nx.Random.normal(key, 0.0, :math.sqrt(2 / 64), shape: {64, 10})
    zeros = &Nx.broadcast(Nx.tensor(0.0), &1)
    momenta = {zeros.({64, 64}), zeros.({64}), zeros.({64, 10}), zeros.({10})}
    {{first, zeros.({64}), second, zeros.({10})}, momenta}
  end

  defp train(step, state, data) do
    step = Nx.Defn.jit(step, compiler: Mlx.Compiler)
    batches = batches(data)

    for _epoch <- 1..12, {images, digits} <- batches, reduce: state do
      state -> state |> step.(images, digits) |> elem(0)
    end
  end

  defp batches({images, digits}) do
    Enum.zip(
      Nx.to_batched(images, 32, leftover: :discard),
      Nx.to_batched(digits, 32, leftover: :discard)
    )
  end

  defp accuracy(weights, {images, digits}), do: weights |> predict(images) |> right(digits)

  defp right(scores, digits) do
    [read, digits] = for x <- [scores, digits], do: Nx.argmax(x, axis: 1)
    read |> Nx.equal(digits) |> Nx.mean() |> Nx.to_number()
  end
end
