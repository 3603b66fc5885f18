defmodule Mlx.NativeFuzzTest do
  # What ends the VM must not end this one.
  use ExUnit.Case, async: true
  import Mlx.TestDevice, only: [device: 0]
  alias Mlx.{Native, OwnVm}

  @moduletag timeout: :infinity

  test "random calls are answered" do
    seed = String.to_integer(System.get_env("FUZZ_SEED", "0"))
    fuzz(seed, "0..9_999", nil)
  end

  # FUZZ_SECONDS=600 mix test --only soak test/mlx/native_fuzz_test.exs
  @tag :soak
  test "random calls are answered for a long time" do
    seed = String.to_integer(System.get_env("FUZZ_SEED", "#{:rand.uniform(2 ** 32)}"))
    fuzz(seed, "Stream.iterate(0, & &1 + 1)", System.get_env("FUZZ_SECONDS", "600"))
  end

  # The number of the case that ended the VM is in a file, where nothing is lost.
  defp fuzz(seed, cases, seconds) do
    file = Path.join(System.tmp_dir!(), "mlx_fuzz_#{seed}_#{System.pid()}")
    on_exit(fn -> File.rm(file) end)

    {output, status} =
      OwnVm.run("""
      {:ok, file} = :file.open(#{inspect(file)}, [:raw, :write])
      note = fn number -> :ok = :file.pwrite(file, 0, <<number::64>>) end
      seconds = #{inspect(seconds)}
      until = seconds && System.monotonic_time(:second) + String.to_integer(seconds)
      count = Mlx.NativeFuzz.run(#{seed}, #{cases}, until, note)
      IO.puts("answered: \#{count}")
      """)

    {:ok, <<number::64>>} = File.read(file)

    assert {status, output =~ "answered: "} == {0, true},
           "Mlx.NativeFuzz.run(#{seed}, #{number}..#{number}) went wrong:\n#{tail(output)}"

    if seconds, do: IO.puts("seed #{seed}: #{output}")
  end

  defp tail(output), do: binary_part(output, byte_size(output), -min(byte_size(output), 4000))

  describe "what was found" do
    test "improper lists" do
      ref = tensor({:u, 8}, [], <<1>>)

      for improper <- [[1 | 2], [[] | :a], [ref | ref]] do
        assert_refused(:stream_submit, [device(), improper, [ref], [0]])
        assert_refused(:stream_submit, [device(), [], improper, [0]])
        assert_refused(:stream_submit, [device(), [], [ref], improper])
        assert_refused(:stream_submit, [device(), [{:add, improper, []}], [ref], [0]])
        assert_refused(:stream_submit, [device(), [{:sum, [0], improper}], [ref], [0]])
        assert_refused(:stream_run, [device(), :add, improper, []])
        assert_refused(:stream_run, [device(), :sum, [ref], improper])
        assert_refused(:tensor_from_binary, [device(), <<1>>, improper, {:u, 8}])
        assert_refused(:tensor_eval, [improper, :tag])

        assert_refused(:pointer_from_local, [device(), {1, 1}, improper, {:u, 8}, :tag])

        assert_refused(:pointer_from_ipc, [device(), {"a", 1}, improper, {:u, 8}, :tag])

        assert_refused(:program_new, [{1, improper, [0]}, [], false])
        {:ok, program} = Native.program_new({1, [], [0]}, [], false)
        assert_refused(:program_run, [device(), program, improper, []])
        assert_refused(:program_run, [device(), program, [ref], improper])
      end
    end

    test "sizes whose product is more than 128 bits" do
      dims = List.duplicate(2 ** 31 - 1, 9)

      assert {:error, %{kind: :shape}} =
               Native.tensor_from_binary(device(), <<>>, dims, {:u, 8})

      assert {:ok, _} = Native.tensor_from_binary(stream(), <<>>, [0 | dims], {:u, 8})
    end

    test "programs of more registers than there can be" do
      for inputs <- [2 ** 24 + 1, 2 ** 40, 2 ** 64 - 1] do
        assert {:error, %{message: message}} = Native.program_new({inputs, [], []}, [], false)
        assert message =~ "registers"
      end

      assert_refused(:program_new, [{2 ** 64, [], []}, [], false])
      assert_refused(:program_new, [{-1, [], []}, [], false])
    end

    test "programs in programs, deeper than the stack" do
      identity = {1, [], [0]}
      nest = fn inner -> {1, [{:cond, [0, 0], [inner, identity]}], [1]} end
      deep = Enum.reduce(1..100_000, identity, fn _, inner -> nest.(inner) end)
      assert {:error, %{message: message}} = Native.program_new(deep, [], false)
      assert message =~ "more than 100 deep"
      assert {:error, %{}} = Native.program_new(deep, [], true)

      usual = Enum.reduce(1..50, identity, fn _, inner -> nest.(inner) end)
      {:ok, program} = Native.program_new(usual, [], true)

      {_, [ref]} =
        Native.program_run(stream(), program, [tensor({:u, 8}, [], <<7>>)], [])

      assert {:ok, <<7>>} = read(ref)
    end

    test "products with no matrices, whose memory nobody keeps" do
      OwnVm.assert_alive("""
      Mlx.Memory.set_cache_limit(0)
      device = Mlx.Device.default()
      new = fn type, dims, bytes ->
        {_, ref} = Mlx.Native.tensor_from_binary(device, bytes, dims, type)
        ref
      end
      x = new.({:f, 16}, [1, 3], <<0::48>>)
      none = new.({:u, 32}, [0, 3, 3], "")
      for _ <- 1..2000 do
        {_, product} = Mlx.Native.stream_run(device, :matvec, [x, none], [])
        Mlx.Dispatch.await(&Mlx.Native.tensor_eval([product], &1))
      end
      """)
    end

    test "systems whose sides don't fit" do
      b = tensor({:f, 32}, [3, 1], <<0::96>>)

      for {n, bytes} <- [{0, <<>>}, {2, <<1.0::float-32-native, 0::64, 1.0::float-32-native>>}],
          {row, attributes} <- [triangular_solve: [true], solve: []] do
        a = tensor({:f, 32}, [n, n], bytes)
        {_, ref} = Native.stream_run(stream(), row, [a, b], attributes)
        assert {:error, %{kind: :shape, message: message}} = read(ref)
        refute message =~ "internal error"
      end
    end

    test "positions of booleans, which MLX can't scatter by" do
      zero = tensor({:u, 8}, [1, 1], <<0>>)
      x = tensor({:u, 8}, [2], <<3, 4>>)

      instructions = [
        {:not_equal, [0, 0], []},
        {:indexed_put, [1, 2, 0], [[0]]},
        {:gather, [1, 2], [[0], [1]]}
      ]

      {_, refs} = Native.stream_submit(stream(), instructions, [zero, x], [3, 4])
      assert Enum.map(refs, &read/1) == [{:ok, <<0, 4>>}, {:ok, <<3>>}]
    end

    test "positions of floats" do
      half = tensor({:f, 32}, [1, 1], <<0.5::float-32-native>>)

      {_, [ref]} =
        Native.stream_submit(stream(), [{:gather, [0, 0], [[0], [1, 1]]}], [half], [1])

      assert {:error, %{kind: :type, op: "gather", message: message}} = read(ref)
      assert message =~ "positions are integers, not f32"
    end

    test "matrices that are none" do
      vector = tensor({:f, 32}, [1], <<0::32>>)
      wide = tensor({:f, 32}, [1, 2], <<0::64>>)

      for {row, results, attributes} <- [
            {:determinant, 1, []},
            {:cholesky, 1, []},
            {:lu, 3, []},
            {:eigh, 2, []},
            {:svd, 3, [false]},
            {:qr, 2, [true, 0.0]}
          ],
          {operand, square} <- [{vector, true}, {wide, false}],
          square or row not in [:svd, :qr] do
        {_, [ref]} =
          Native.stream_submit(stream(), [{row, [0], attributes}], [operand], [results])

        assert {:error, %{kind: :shape, op: op}} = read(ref)
        assert op == "#{row}"
      end
    end

    test "groups of no numbers, and numbers of no bits" do
      x = tensor({:f, 32}, [1, 32], <<0::size(32)-unit(32)>>)

      for format <- [[0, 2], [-1, 4], [32, 0]] do
        {_, ref} = Native.stream_run(stream(), :quantize_affine, [x], format)
        assert {:error, %{kind: :shape, op: "quantize_affine"}} = read(ref)

        {_, ref} =
          Native.stream_run(stream(), :dequantize, [x, x, x], ["affine"] ++ format ++ [{:f, 32}])

        assert {:error, %{kind: :shape, op: "dequantize"}} = read(ref)
      end
    end

    test "attention of fewer or more than four axes" do
      for dims <- [[70], [1, 70, 70], [1, 1, 1, 70, 1]] do
        x = tensor({:f, 32}, dims, <<0::size(32 * Enum.product(dims))>>)

        for {row, operands, attributes} <- [
              {:attention, [x, x, x], [1.0, true, false, false]},
              {:attention, [x, x, x], [1.0, false, false, false]},
              {:attention_from, [x, x, x, x], [1.0, false]}
            ] do
          {_, ref} = Native.stream_run(:cpu, row, operands, attributes)
          assert {:error, %{kind: :shape, message: message}} = read(ref)
          assert message =~ "dimensions are given where 4 are needed"
        end
      end
    end

    test "updates of what has no elements" do
      x = tensor({:u, 16}, [2, 0], <<>>)
      position = tensor({:s, 64}, [1], <<0::64>>)

      for row <- [:indexed_add, :indexed_put] do
        {:ok, ref} = Native.stream_run(:cpu, row, [x, position, x], [[0]])
        assert read(ref) == {:ok, <<>>}
      end
    end

    test "attributes outside what rows know" do
      x = tensor({:u, 8}, [2], <<1, 2>>)
      one = tensor({:u, 8}, [], <<1>>)

      for {row, operands, attributes} <- [
            {:pack_bits, [0], [0]},
            {:wrap_bits, [0], [9]},
            {:unpack_bits, [0], [-1, 2, true]},
            {:pad, [0, 1], [[0], [0], [-1]]},
            {:pad, [0, 1], [[0, 0], [0], [0]]}
          ] do
        {_, [ref]} =
          Native.stream_submit(stream(), [{row, operands, attributes}], [x, one], [2])

        assert {:error, %{op: op, message: message}} = read(ref)
        assert op == "#{row}"
        refute message =~ "internal error"
      end
    end
  end

  defp assert_refused(function, args) do
    case attempt(function, args) do
      {:error, %{message: _}} -> :ok
      {:raised, error} -> refute match?(%ErlangError{original: :nif_panicked}, error)
      other -> flunk("#{function} answered #{inspect(other)}")
    end
  end

  defp attempt(function, args) do
    apply(Native, function, args)
  rescue
    error -> {:raised, error}
  end

  # The queue that tests share may be full.
  defp stream, do: Mlx.Stream.new().ref

  defp tensor(type, dims, bytes) do
    {status, ref} = Native.tensor_from_binary(stream(), bytes, dims, type)
    assert status in [:ok, :collect]
    ref
  end

  defp read(ref) do
    tag = make_ref()

    with {:ok, :pending} <- Native.tensor_read(ref, tag) do
      assert_receive {^tag, outcome}, 60_000
      outcome
    end
  end
end
