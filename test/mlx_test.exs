defmodule MlxTest do
  use ExUnit.Case, async: true
  import Mlx.Samples
  doctest Mlx

  @tensor [1.0, 2.5] |> Nx.tensor() |> Nx.to_binary()

  describe "from_binary" do
    test "takes every form of a type" do
      for type <- [:f32, {:f, 32}] do
        assert %Nx.Tensor{type: {:f, 32}, shape: {2}} = Mlx.from_binary(@tensor, {2}, type)
      end
    end

    test "puts the tensor where it is asked to" do
      assert Mlx.from_binary(@tensor, {2}, :f32, device: :cpu).data.device == :cpu
      assert Mlx.from_binary(@tensor, {2}, :f32).data.device == Mlx.Device.default()
    end

    test "refuses a binary of another size" do
      for {shape, type, size} <- [{{3}, :f32, 12}, {{1}, :f32, 4}, {{}, :u8, 1}, {{0}, :f32, 0}] do
        error =
          assert_raise Mlx.Error, fn -> Mlx.from_binary(@tensor, shape, type) end

        assert error.kind == :shape
        assert error.message =~ "has #{size} bytes, the binary has 8"
      end
    end

    test "refuses types that MLX has not" do
      for type <- [:c128] do
        error = assert_raise Mlx.Error, fn -> Mlx.from_binary(@tensor, {1}, type) end
        assert error.kind == :type
        assert error.message =~ "#{type} is not supported; supported are"
      end
    end

    test "refuses devices that aren't there, and options that it doesn't know" do
      error = assert_raise Mlx.Error, fn -> Mlx.from_binary(@tensor, {2}, :f32, device: :tpu) end
      assert error.kind == :device
      assert error.message =~ "no device :tpu; available: "

      assert_raise ArgumentError, ~r/:devise/, fn ->
        Mlx.from_binary(@tensor, {2}, :f32, devise: 1)
      end
    end
  end

  describe "to_binary, shape and dtype" do
    test "of every type" do
      for type <- Mlx.TestDevice.types(types()) do
        tensor = mlx(sample(type))
        assert Mlx.to_binary(tensor) == Nx.to_binary(sample(type))
        assert Mlx.shape(tensor) == {3, 5}
        assert Mlx.dtype(tensor) == type
      end
    end

    test "refuse tensors of other backends" do
      for tensor <- [sample(:f32), Nx.template({2}, :f32)],
          fun <- [&Mlx.to_binary/1, &Mlx.shape/1, &Mlx.dtype/1, &Mlx.eval/1, &Mlx.async_eval/1] do
        assert_raise ArgumentError, ~r/expected a tensor of Mlx.Backend/, fn -> fun.(tensor) end
      end
    end

    test "of a vectorized tensor are those of all its axes" do
      tensor = sample(:f32, {2, 3}) |> mlx() |> Nx.vectorize(:rows)
      assert Mlx.shape(Nx.devectorize(tensor)) == {2, 3}
      assert Mlx.to_binary(tensor) == Nx.to_binary(sample(:f32, {2, 3}))
    end
  end

  describe "eval and async_eval" do
    test "give their container back" do
      a = Nx.add(mlx(sample(:f32)), 1)
      b = Nx.multiply(a, 2)

      for container <- [a, {a, b}, {a, {b, %{c: a}}}, %{a: a, b: {b}}, [a, b], {}, []],
          fun <- [&Mlx.eval/1, &Mlx.async_eval/1] do
        assert fun.(container) === container
      end
    end

    test "compute" do
      sum = Nx.sum(mlx(sample(:s32)))
      assert Nx.to_number(Mlx.eval(sum)) == Nx.to_number(Nx.sum(sample(:s32)))
      assert Nx.to_number(Mlx.async_eval(Nx.negate(sum))) == -Nx.to_number(sum)
    end

    test "of one tensor many times" do
      tensor = Nx.exp(mlx(sample(:f32)))
      for _ <- 1..100, do: assert(Mlx.eval(Mlx.async_eval(tensor)) === tensor)
    end
  end

  describe "synchronize" do
    test "waits for all work" do
      for _ <- 1..10, do: Nx.dot(mlx(sample(:f32, {64, 64})), mlx(sample(:f32, {64, 64})))
      assert Mlx.synchronize() == :ok
      assert Mlx.synchronize() == :ok
    end

    test "refuses a device that isn't there" do
      assert_raise Mlx.Error, ~r/no device :tpu/, fn -> Mlx.synchronize(:tpu) end
    end
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)
end
